import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from './defaults.ts';
import {
  type ContainerSpec,
  type EndpointSpec,
  emptyEndpointSpec,
  emptyHealthCheck,
  emptyMount,
  emptyNetworkAttachment,
  emptyPortConfig,
  emptyResourceLimits,
  type HealthCheck,
  type Mount,
  type NetworkAttachment,
  type PortConfig,
  type ServiceSpec,
} from './generated/objects.ts';
import { validateServiceSpec } from './validate-spec.ts';

const good = newServiceSpec('web', { image: 'nginx:alpine' });
const container = (change: Partial<ContainerSpec>): ServiceSpec => ({
  ...good,
  task: { ...good.task, container: { ...good.task.container, ...change } },
});
const health = (change: Partial<HealthCheck>): ServiceSpec =>
  container({ healthCheck: { ...emptyHealthCheck, ...change } });
const task = (change: Partial<ServiceSpec['task']>): ServiceSpec => ({
  ...good,
  task: { ...good.task, ...change },
});
const mount = (change: Partial<Mount>): Mount => ({
  ...emptyMount,
  type: 'bind',
  source: '/srv',
  target: '/data',
  ...change,
});
const port = (change: Partial<PortConfig>): ServiceSpec => ({
  ...good,
  endpoint: {
    ...emptyEndpointSpec,
    ports: [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080, publishMode: 'host', ...change }],
  },
});
/** The same port once more, as it is and as changed. */
const ports = (one: Partial<PortConfig>, other: Partial<PortConfig>): ServiceSpec => ({
  ...good,
  endpoint: { ...good.endpoint, ports: [one, other].flatMap((change) => port(change).endpoint.ports) },
});
const endpoint = (change: Partial<EndpointSpec>, spec: ServiceSpec = good): ServiceSpec => ({
  ...spec,
  endpoint: { ...spec.endpoint, ...change },
});
const attached = (...changes: readonly Partial<NetworkAttachment>[]): ServiceSpec =>
  task({ networks: changes.map((change) => ({ ...emptyNetworkAttachment, networkId: 'front', ...change })) });
const limits = (change: object) =>
  task({ resources: { ...good.task.resources, limits: { ...good.task.resources.limits, ...change } } });
const reservations = (change: object) =>
  task({
    resources: { ...good.task.resources, reservations: { ...good.task.resources.reservations, ...change } },
  });

test('an ordinary spec is accepted', () => {
  validateServiceSpec(good);
  for (const test of [[], ['NONE'], ['CMD', 'check', ''], ['CMD-SHELL', 'check || exit 1']])
    validateServiceSpec(health({ test, intervalMs: 1, timeoutMs: 30_000, retries: 5 }));
  validateServiceSpec(port({}));
  validateServiceSpec(
    port({ publishMode: 'ingress', publishedPort: 0, locality: 'only', hostAddress: '10.0.0.1' }),
  );
  validateServiceSpec(
    attached({ networkId: 'front', aliases: ['www'], virtualAddresses: ['10.0.1.5', 'fd00::5'] }),
  );
  validateServiceSpec(attached({ networkId: 'host' }));
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
    [
      'a health check of another kind',
      health({ test: ['curl', '/'] }),
      /^health-cmd: test "curl" must be NONE/,
    ],
    ['a health check without command', health({ test: ['CMD'] }), /^health-cmd: test CMD needs a command/],
    ['an empty health check', health({ test: ['CMD-SHELL', ''] }), /^health-cmd: test CMD-SHELL needs/],
    ['no health check, but a command', health({ test: ['NONE', 'x'] }), /^health-cmd: test NONE takes no/],
    ['NUL in a health check', health({ test: ['CMD', 'a\0'] }), /^health-cmd: must not contain NUL/],
    ['a negative interval', health({ intervalMs: -1 }), /^health-interval: -1/],
    ['half a millisecond', health({ timeoutMs: 0.5 }), /^health-timeout: 0.5/],
    ['a year of start', health({ startPeriodMs: 3e10 }), /^health-start-period: .* more than 24 days/],
    ['a negative start interval', health({ startIntervalMs: -1 }), /^health-start-interval: -1/],
    ['half a retry', health({ retries: 1.5 }), /^health-retries: 1.5/],
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
          limits: { ...emptyResourceLimits, memoryBytes: 8 * 2 ** 20 },
          reservations: { cpuNanos: 0, memoryBytes: 16 * 2 ** 20 },
          generic: [],
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
      'an affinity without a service',
      task({ placement: { ...good.task.placement, affinities: ['db'] } }),
      /placement-affinity: "db" must be service==NAME, service!=NAME or/,
    ],
    [
      'an affinity for itself',
      task({ placement: { ...good.task.placement, affinities: [`service==${good.name}`] } }),
      /no node could get the first task/,
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
    ['a port on a name', port({ hostAddress: 'eth0' }), /^publish: address "eth0" must be an IP address/],
    [
      'a port on every address',
      port({ hostAddress: '0.0.0.0' }),
      /^publish: address 0.0.0.0 is every address/,
    ],
    ['a port on no interface', port({ hostInterface: 'a b' }), /^publish: interface "a b"/],
    [
      'a port on an address and an interface',
      port({ hostAddress: '10.0.0.1', hostInterface: 'eth0' }),
      /^publish: address and interface do not go together/,
    ],
    [
      'a host port that is local',
      port({ locality: 'prefer' }),
      /^publish: local=prefer goes with mode=ingress/,
    ],
    ['a port twice', ports({}, { targetPort: 81 }), /^publish: port 8080\/tcp is published twice/],
    [
      'a port of both modes',
      ports({}, { publishMode: 'ingress' }),
      /^publish: port 8080\/tcp is published twice/,
    ],
    [
      'a port here and everywhere',
      ports({}, { hostAddress: '10.0.0.1' }),
      /^publish: port 8080\/tcp is published/,
    ],
    [
      'an ingress port without VIP',
      endpoint({ mode: 'dnsrr' }, port({ publishMode: 'ingress' })),
      /^publish: port 80 cannot be published in ingress mode with endpoint-mode dnsrr/,
    ],
    [
      'an affinity that nobody has',
      endpoint({ mode: 'dnsrr', affinity: 'client-address' }),
      /^affinity: goes with endpoint-mode vip/,
    ],
    ['a weight of two words', endpoint({ weightLabel: 'a b' }), /^weight-label: "a b"/],
    ['a weight that nobody has', endpoint({ mode: 'dnsrr', weightLabel: 'w' }), /^weight-label: goes with/],
    ['a network without name', attached({ networkId: '' }), /^network: must be the name or id/],
    ['one network twice', attached({}, {}), /^network: "front" is used twice/],
    [
      'a host with company',
      attached({}, { networkId: 'host' }),
      /^network: "host" goes with no other network/,
    ],
    [
      'a host with a name',
      attached({ networkId: 'host', aliases: ['a'] }),
      /^network: "host" is each node's own/,
    ],
    ['an alias with a dot', attached({ aliases: ['a.b'] }), /^network: alias: "a.b"/],
    [
      'a VIP that is a name',
      attached({ virtualAddresses: ['web'] }),
      /^network: vip: "web" must be an IP address/,
    ],
    [
      'two VIPs of a family',
      attached({ virtualAddresses: ['10.0.0.1', '10.0.0.2'] }),
      /^network: vip: a service has one address of IPv4/,
    ],
    [
      'a VIP that is not wanted',
      endpoint({ mode: 'dnsrr' }, attached({ virtualAddresses: ['10.0.0.1'] })),
      /^network: vip: a service with endpoint-mode dnsrr has none/,
    ],
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

test('one port may be published on several addresses, or chosen several times', () => {
  validateServiceSpec(ports({ hostAddress: '10.0.0.1' }, { hostAddress: '10.0.0.2' }));
  validateServiceSpec(ports({ hostInterface: 'eth0' }, { hostInterface: 'eth1' }));
  validateServiceSpec(ports({}, { protocol: 'udp' }));
  validateServiceSpec(ports({ publishedPort: 0 }, { publishedPort: 0 }));
});

test('what this version cannot do is refused as such, never ignored', () => {
  const cases: [ServiceSpec, RegExp][] = [
    [task({ logDriver: { name: 'gelf', options: {} } }), /^log-driver: "gelf" is not supported/],
  ];
  for (const [spec, message] of cases)
    assert.throws(() => validateServiceSpec(spec), { code: 'unimplemented', message });
});
