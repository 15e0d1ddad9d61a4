import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { etcdSettings, loadConfig } from './config.ts';

function load(flags: Record<string, string>, environment: Record<string, string> = {}, file = '') {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-config-'));
  const configFile = path.join(directory, 'config.yaml');
  if (file !== '') writeFileSync(configFile, file);
  try {
    return loadConfig({ flags: new Map(Object.entries(flags)), environment, configFile });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test('a flag beats the environment, the environment the file, the file the default', () => {
  const file = 'runtime: runc\nlog-level: error\nmetrics-addr: 0.0.0.0:1\n';
  const { config, sources } = load(
    { runtime: 'crun' },
    { TSSWARM_RUNTIME: 'auto', TSSWARM_LOG_LEVEL: 'warn' },
    file,
  );
  assert.deepEqual(
    [config.runtime, config['log-level'], config['metrics-addr'], config['data-root']],
    ['crun', 'warn', '0.0.0.0:1', '/var/lib/tsswarm'],
  );
  assert.deepEqual(
    [sources.runtime, sources['log-level'], sources['data-root']],
    ['flag', 'environment', 'default'],
  );
});

test('a bad value names the option, where it stood and what would be right', () => {
  assert.throws(() => load({ runtime: 'kata' }), /runtime \(flag\): "kata" must be one of auto, crun, runc/);
  assert.throws(
    () => load({}, { TSSWARM_DATA_ROOT: 'here' }),
    /data-root \(environment\): "here" must be an absolute path/,
  );
  for (const wrong of ['nine', '127.0.0.1:70000'])
    assert.throws(() => load({ 'metrics-addr': wrong }), /metrics-addr \(flag\): ".*" must be HOST:PORT/);
});

test('an unknown option is refused, and so is a file that is no list of options', () => {
  assert.throws(() => load({ colour: 'red' }), /colour \(flag\): unknown option/);
  assert.throws(() => load({ constructor: 'x' }), /constructor \(flag\): unknown option/);
  assert.equal(load({}, {}, 'subnet:\n').sources.subnet, 'default');
  assert.throws(() => load({}, {}, 'colour: red\n'), /unknown option/);
  assert.throws(() => load({}, {}, '- just\n- a list\n'), /must hold "option: value" lines/);
  assert.throws(() => load({}, {}, 'a: [\n'), { code: 'invalid-argument' });
});

test('a store in etcd is a list of members that are reached alike', () => {
  const settings = (flags: Record<string, string>) => etcdSettings(load(flags).config);

  assert.equal(settings({}), undefined);
  assert.deepEqual(settings({ store: 'etcd=https://a:2379,b:2380' })?.hosts, [
    'https://a:2379',
    'https://b:2380',
  ]);
  assert.deepEqual(settings({ store: 'etcd=[::1]:2379' })?.hosts, ['http://[::1]:2379']);
  assert.equal(settings({ store: 'etcd=a:1', 'store-prefix': '/one/two' })?.prefix, '/one/two');
  for (const wrong of ['consul', 'etcd', 'etcd=', 'etcd=a', 'etcd=http://a:1,https://b:1'])
    assert.throws(() => load({ store: wrong }), { code: 'invalid-argument' }, wrong);
  for (const wrong of ['', 'name', '/', '/name/'])
    assert.throws(() => load({ 'store-prefix': wrong }), /must look like/);
});

test('certificates without https, or half of a pair, are refused before anything starts', () => {
  const settings = (flags: Record<string, string>) =>
    etcdSettings(load({ store: 'etcd=https://a:1', ...flags }).config);

  assert.equal(settings({ 'store-ca': '/ca.pem' })?.caFile, '/ca.pem');
  assert.throws(() => settings({ store: 'etcd=a:1', 'store-ca': '/ca.pem' }), /certificates are for https/);
  assert.throws(() => settings({ 'store-cert': '/cert.pem' }), /goes together with store-key/);
  assert.throws(() => settings({ 'store-user': 'root' }), /goes together with store-password-file/);
});
