import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { loadConfig } from './config.ts';
import { parseRegistries, registrySettings } from './registries-config.ts';

const read = (yaml: string) => parseRegistries(parse(yaml), 'registries');

test('mirrors, insecure registries and authorities are read from the file', () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'img-config-'));
  const pem = path.join(directory, 'ca.pem');
  const configFile = path.join(directory, 'config.yaml');
  writeFileSync(pem, '-----BEGIN CERTIFICATE-----\n');
  const text = `
image-keep-days: 0
registries:
  mirrors:
    docker.io: [https://mirror.example/hub/, http://127.0.0.1:5000]
    quay.io: http://10.0.0.1:5000
  insecure: ["10.0.0.1:5000"]
  certificates: {registry.example: ${pem}}
`;
  writeFileSync(configFile, text);

  const { config, sources } = loadConfig({ flags: new Map(), environment: {}, configFile });

  assert.equal(sources.registries, configFile);
  assert.equal(config['image-keep-days'], 0);
  assert.deepEqual(registrySettings(config.registries, ['old.example']), {
    mirrors: {
      'docker.io': ['https://mirror.example/hub', 'http://127.0.0.1:5000'],
      'quay.io': ['http://10.0.0.1:5000'],
    },
    insecure: ['10.0.0.1:5000', 'old.example'],
    authorities: { 'registry.example': '-----BEGIN CERTIFICATE-----\n' },
  });
  writeFileSync(pem, 'nothing');
  assert.throws(
    () => registrySettings(config.registries, []),
    /registries\.certificates\.registry\.example.*no certificate/s,
  );
  rmSync(directory, { recursive: true });
});

test('what cannot be right is refused by name', () => {
  const table: [yaml: string, text: RegExp][] = [
    ['[a]', /registries: must hold "name: value" lines/],
    ['mirror: {}', /registries\.mirror: unknown; known are mirrors, insecure, certificates/],
    ['mirrors: {docker.io: [http://mirror.example]}', /plain HTTP: use https, or list mirror\.example/],
    ['mirrors: {docker.io: [mirror.example]}', /registries\.mirrors\.docker\.io.*must be https:\/\/HOST/s],
    ['mirrors: {docker.io: [ftp://mirror.example]}', /must be https:\/\/HOST/],
    ['mirrors: {hub: [https://mirror.example]}', /registries\.mirrors\.hub.*must be HOST or HOST:PORT/s],
    ['insecure: ["https://a.example"]', /registries\.insecure/],
    ['insecure: [5000]', /registries\.insecure.*list of names/s],
    ['certificates: {a.example: ca.pem}', /registries\.certificates\.a\.example.*absolute path/s],
  ];
  for (const [yaml, text] of table) assert.throws(() => read(yaml), text, yaml);
  const flags = new Map([['image-disk-low', '90']]);
  assert.throws(() => loadConfig({ flags, environment: {}, configFile: '/nonexistent' }), /image-disk-low/);
});
