import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from './defaults.ts';
import { emptyMount } from './generated/objects.ts';
import {
  expandContainer,
  expandPayload,
  type PayloadSources,
  sampleFacts,
  type TaskFacts,
} from './task-template.ts';
import { validateServiceSpec } from './validate-spec.ts';

const facts: TaskFacts = {
  service: { id: 'svc1', name: 'web', labels: { tier: 'front' } },
  node: { id: 'n1', hostname: 'alpha', platform: { os: 'linux', architecture: 'amd64' } },
  task: { id: 't1', slot: 3 },
};
const none: PayloadSources = {
  secret: (target) => {
    throw new Error(`no secret ${target}`);
  },
  config: () => '',
  env: () => '',
};
const spec = (env: string[]) => newServiceSpec('web', { image: 'busybox', env });

test('environment values, host name and mounts know their task', () => {
  const { container } = newServiceSpec('web', {
    image: 'busybox',
    env: [
      'WHO={{.Task.Name}} {{.Service.ID}}',
      'WHERE={{.Node.Hostname}}/{{.Node.Platform.OS}}-{{.Node.Platform.Architecture}}',
      'TIER={{.Service.Labels.tier}}{{index .Service.Labels "tier"}}',
      'PLAIN',
      'JOINED={{join (split .Service.Name "e") "-"}}',
    ],
    hostname: '{{.Service.Name}}-{{.Task.Slot}}',
    mounts: [{ ...emptyMount, type: 'bind', source: '/data/{{.Task.Slot}}', target: '/{{.Node.ID}}' }],
  }).task;

  const expanded = expandContainer(container, facts);
  assert.deepEqual(expanded.env, [
    'WHO=web.3.t1 svc1',
    'WHERE=alpha/linux-amd64',
    'TIER=frontfront',
    'PLAIN',
    'JOINED=w-b',
  ]);
  assert.equal(expanded.hostname, 'web-3');
  assert.deepEqual(expanded.mounts[0], { ...emptyMount, type: 'bind', source: '/data/3', target: '/n1' });
});

test('what a volume is made with and which image is mounted know their task', () => {
  const { container } = newServiceSpec('web', {
    image: 'busybox',
    mounts: [
      {
        ...emptyMount,
        type: 'volume',
        source: 'data-{{.Task.Slot}}',
        target: '/data',
        volumeLabels: { owner: '{{.Service.Name}}' },
        volumeDriver: {
          name: 'local',
          options: { type: 'nfs', o: 'addr=a', device: ':/{{.Node.Hostname}}' },
        },
      },
      { ...emptyMount, type: 'image', source: 'models:{{.Service.Labels.tier}}', target: '/models' },
    ],
  }).task;

  const [volume, image] = expandContainer(container, facts).mounts;

  assert.deepEqual(volume?.volumeLabels, { owner: 'web' });
  assert.equal(volume?.volumeDriver?.options['device'], ':/alpha');
  assert.equal(image?.source, 'models:front');
});

for (const [value, reason] of [
  ['{{.Service.Nope}}', /env: A: template .*can't evaluate field Nope/],
  ['{{.Service.Labels.missing}}', /can't evaluate field missing/],
  ['{{exec "ls"}}', /function "exec" not defined/],
  ['{{secret "x"}}', /function "secret" not defined/],
  ['{{.constructor}}', /can't evaluate field constructor/],
  ['{{.Service.Name', /unclosed action/],
  ['{{$x := "ab"}}{{range 9999}}{{$x = print $x $x}}{{end}}', /longer than 65536 characters/],
  ['{{range 999999999}}x{{end}}', /range over 999999999 is too much/],
  ['{{range 5000}}{{range 5000}}{{end}}x{{end}}', /more than 10000 steps|too much/],
  ['{{printf "%999999999s" "x"}}', /width 999999999/],
] as const)
  test(`a service whose environment has ${value} is refused`, () => {
    assert.throws(() => validateServiceSpec(spec([`A=${value}`])), reason);
  });

test('a payload looks up other files and the environment', () => {
  const sources: PayloadSources = {
    secret: (target) => `secret of ${target}`,
    config: (target) => `config of ${target}`,
    env: (name) => `env of ${name}`,
  };
  const source = Buffer.from('{{.Task.Slot}} {{secret "a"}}, {{config "/b"}}, {{env "C"}}');
  assert.equal(
    Buffer.from(expandPayload(source, facts, sources)).toString(),
    '3 secret of a, config of /b, env of C',
  );
});

test('what goes wrong in a payload says nothing of what secrets hold', () => {
  const sources = { ...none, secret: () => 'hunter2' };
  for (const source of [
    '{{(secret "a").Field}}',
    '{{range secret "a"}}{{end}}',
    '{{index (secret "a") (secret "a")}}',
    '{{lt (secret "a") 1}}',
    '{{len (index .Service.Labels (secret "a")) | secret "a" "b" | printf 1}}{{.Nope}}',
  ])
    assert.throws(
      () => expandPayload(Buffer.from(source), facts, sources),
      (error: Error) => /^template: /.test(error.message) && !error.message.includes('hunter2'),
      source,
    );
});

test('a look-up that finds nothing is an error', () => {
  assert.throws(
    () => expandPayload(Buffer.from('{{secret "a"}}'), facts, none),
    /error calling secret: no secret a/,
  );
});

test('the imagined task of a service has its labels', () => {
  assert.deepEqual(sampleFacts({ ...spec([]), labels: { a: 'b' } }).service.labels, { a: 'b' });
});
