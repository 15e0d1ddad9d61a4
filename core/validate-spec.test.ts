import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from './defaults.ts';
import {
  type ContainerSpec,
  emptyEndpointSpec,
  emptyPortConfig,
  type Mount,
  type PortConfig,
  type ServiceSpec,
} from './generated/objects.ts';
import { validateServiceSpec } from './validate-spec.ts';

const good = newServiceSpec('web', { image: 'nginx:alpine' });
const container = (change: Partial<ContainerSpec>): ServiceSpec => ({
  ...good,
  task: { ...good.task, container: { ...good.task.container, ...change } },
});
const task = (change: Partial<ServiceSpec['task']>): ServiceSpec => ({
  ...good,
  task: { ...good.task, ...change },
});
const mount = (change: Partial<Mount>): Mount => ({
  type: 'bind',
  source: '/srv',
  target: '/data',
  readOnly: false,
  bindPropagation: '',
  tmpfsSizeBytes: 0,
  tmpfsMode: 0,
  ...change,
});
const port = (change: Partial<PortConfig>): ServiceSpec => ({
  ...good,
  endpoint: {
    ...emptyEndpointSpec,
    ports: [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080, publishMode: 'host', ...change }],
  },
});
const limits = (change: object) =>
  task({ resources: { ...good.task.resources, limits: { ...good.task.resources.limits, ...change } } });
const reservations = (change: object) =>
  task({
    resources: { ...good.task.resources, reservations: { ...good.task.resources.reservations, ...change } },
  });

test('an ordinary spec is accepted', () => {
  validateServiceSpec(good);
  validateServiceSpec(port({}));
  validateServiceSpec(
    container({ mounts: [mount({}), mount({ type: 'tmpfs', source: '', target: '/tmp' })] }),
  );
  validateServiceSpec(
    container({ user: 'web:admins', stopSignal: 'SIGRTMIN+3', hostname: 'a.b-c', env: ['A=', 'B'] }),
  );
});

test('each malformed field is refused by name', () => {
  const cases: [string, ServiceSpec, RegExp][] = [
    ['no name', { ...good, name: '' }, /^name: /],
    ['a name with a space', { ...good, name: 'my web' }, /^name: "my web"/],
    ['a name that is too long', { ...good, name: 'a'.repeat(64) }, /^name: .*63/],
    ['no mode', { ...good, mode: {} }, /^mode: /],
    ['negative replicas', { ...good, mode: { replicated: { replicas: -1 } } }, /^replicas: -1/],
    ['half a replica', { ...good, mode: { replicated: { replicas: 1.5 } } }, /^replicas: 1.5/],
    ['a billion replicas', { ...good, mode: { replicated: { replicas: 1e9 } } }, /^replicas: /],
    ['no image', container({ image: '' }), /^image: /],
    ['an image in upper case', container({ image: 'Nginx' }), /[Nn]ginx/],
    ['an environment without name', container({ env: ['=x'] }), /^env: "=x"/],
    ['a relative directory', container({ workdir: 'tmp' }), /^workdir: "tmp"/],
    ['a user with three parts', container({ user: 'a:b:c' }), /^user: "a:b:c"/],
    ['a group with a colon', container({ groups: ['a:b'] }), /^group: "a:b"/],
    ['a host name with an underscore', container({ hostname: 'a_b' }), /^hostname: "a_b"/],
    ['a signal that does not exist', container({ stopSignal: 'SIGNOPE' }), /^stop-signal: "SIGNOPE"/],
    ['a negative grace period', container({ stopGracePeriodMs: -1 }), /^stop-grace-period: -1/],
    ['a relative mount target', container({ mounts: [mount({ target: 'data' })] }), /^mount: target "data"/],
    ['a relative bind source', container({ mounts: [mount({ source: 'srv' })] }), /^mount: source "srv"/],
    [
      'one mount target twice',
      container({ mounts: [mount({}), mount({})] }),
      /^mount: target "\/data" is used twice/,
    ],
    [
      'a tmpfs with a source',
      container({ mounts: [mount({ type: 'tmpfs' })] }),
      /^mount: a tmpfs has no source/,
    ],
    ['a label without name', { ...good, labels: { ' ': 'x' } }, /^label: /],
    ['negative memory', limits({ memoryBytes: -1 }), /^limit-memory: -1/],
    ['too little memory', limits({ memoryBytes: 1000 }), /^limit-memory: 1000 bytes is less than 4 MiB/],
    ['too little CPU', reservations({ cpuNanos: 5 }), /^reserve-cpu: /],
    ['negative pids', limits({ pids: -5 }), /^limit-pids: -5/],
    [
      'more reserved than allowed',
      task({
        resources: {
          limits: { cpuNanos: 0, memoryBytes: 8 * 2 ** 20, pids: 0 },
          reservations: { cpuNanos: 0, memoryBytes: 16 * 2 ** 20 },
        },
      }),
      /^reserve-memory: /,
    ],
    [
      'an unknown constraint key',
      task({ placement: { ...good.task.placement, constraints: ['node.color==red'] } }),
      /unknown key "node.color"/,
    ],
    [
      'a constraint with one =',
      task({ placement: { ...good.task.placement, constraints: ['node.id=1'] } }),
      /KEY==VALUE/,
    ],
    [
      'a negative cap',
      task({ placement: { ...good.task.placement, maxReplicasPerNode: -1 } }),
      /^replicas-max-per-node: -1/,
    ],
    [
      'negative restart attempts',
      task({ restart: { ...good.task.restart, maxAttempts: -1 } }),
      /^restart-max-attempts: -1/,
    ],
    [
      'a failure ratio above one',
      { ...good, update: { ...good.update, maxFailureRatio: 1.2 } },
      /^update-max-failure-ratio: 1.2/,
    ],
    [
      'a rollback that rolls back',
      { ...good, rollback: { ...good.rollback, failureAction: 'rollback' } },
      /^rollback-failure-action: /,
    ],
    ['target port zero', port({ targetPort: 0 }), /^publish: target port 0/],
    ['a published port too high', port({ publishedPort: 70_000 }), /^publish: published port 70000/],
    [
      'an unknown log option',
      task({ logDriver: { name: 'json-file', options: { colour: 'red' } } }),
      /^log-opt: "colour"/,
    ],
    [
      'a log size without number',
      task({ logDriver: { name: 'json-file', options: { 'max-size': 'big' } } }),
      /^log-opt: max-size "big"/,
    ],
  ];
  for (const [what, spec, message] of cases)
    assert.throws(() => validateServiceSpec(spec), { code: 'invalid-argument', message }, what);
});

test('what this version cannot do is refused as such, never ignored', () => {
  const cases: [ServiceSpec, RegExp][] = [
    [port({ publishMode: 'ingress' }), /^publish: mode=ingress is not supported yet/],
    [
      container({ mounts: [mount({ type: 'volume', source: 'data' })] }),
      /^mount: type "volume".*not supported yet/,
    ],
    [task({ logDriver: { name: 'syslog', options: {} } }), /^log-driver: "syslog" is not supported yet/],
  ];
  for (const [spec, message] of cases)
    assert.throws(() => validateServiceSpec(spec), { code: 'unimplemented', message });
});
