// What operators may do with networks, and what services may ask of them: the handlers on a real store, the allocator's
// part played by the test.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyNetworkAttachment,
  emptyNetworkSpec,
  emptyPortConfig,
  emptySubnet,
  type Network,
  type NetworkAttachment,
  type NetworkSpec,
  type PortConfig,
  type Service,
  type ServiceSpec,
  type Subnet,
  type Task,
} from '../../core/generated/objects.ts';
import { aTask } from '../../test/support/builders.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { type PlayedAllocator, playAllocator } from '../../test/support/play-allocator.ts';
import { Store } from '../store/store.ts';
import { findNetwork } from './find.ts';
import { createNetwork, getNetwork, listNetworks, removeNetwork, updateNetwork } from './network-api.ts';
import { createService, updateService } from './service-api.ts';
import { newTurns } from './turns.ts';

const subnet = (text: string, change: Partial<Subnet> = {}): Subnet => ({
  ...emptySubnet,
  subnet: text,
  ...change,
});
const ingressPort = (publishedPort: number, change: Partial<PortConfig> = {}): PortConfig => ({
  ...emptyPortConfig,
  targetPort: 80,
  publishedPort,
  ...change,
});

class World {
  readonly log = new MemoryLog();
  readonly clock = new FakeClock();
  readonly store = new Store(this.log, this.clock);
  readonly options = { store: this.store, clock: this.clock, randomBytes, takeTurn: newTurns() };
  readonly allocator: PlayedAllocator | undefined;

  private constructor(hasAllocator: boolean) {
    this.allocator = hasAllocator ? playAllocator(this.store) : undefined;
  }

  static async create({ hasAllocator = true } = {}): Promise<World> {
    const world = new World(hasAllocator);
    await world.store.open();
    return world;
  }

  async network(name: string, change: Partial<NetworkSpec> = {}): Promise<Network> {
    const spec = { ...emptyNetworkSpec, name, ...change };
    return (await createNetwork(this.options, spec, new AbortController().signal)).network;
  }

  async change(network: Network, change: Partial<NetworkSpec>): Promise<Network> {
    const { id, meta } = findNetwork(this.store.view, network.id);
    const spec = { ...network.spec, ...change };
    return (await updateNetwork(this.options, { networkId: id, version: meta.version, spec })).network;
  }

  async service(
    name: string,
    networks: readonly (string | Partial<NetworkAttachment>)[],
    change: Partial<ServiceSpec['endpoint']> = {},
  ): Promise<Service> {
    const spec = newServiceSpec(name, { image: 'busybox' });
    const attachments = networks.map((network) => ({
      ...emptyNetworkAttachment,
      ...(typeof network === 'string' ? { networkId: network } : network),
    }));
    const asked = {
      ...spec,
      task: { ...spec.task, networks: attachments },
      endpoint: { ...spec.endpoint, ...change },
    };
    return (await createService(this.options, { spec: asked })).service;
  }

  respecify(service: Service, spec: ServiceSpec | undefined): Promise<{ readonly service: Service }> {
    const { specVersion } = this.store.view.service.get(service.id) as Service;
    return updateService(this.options, {
      serviceId: service.id,
      version: specVersion,
      rollback: spec === undefined,
      ...(spec && { spec }),
    });
  }

  task(serviceId: string, change: Partial<Task>): Promise<void> {
    return this.store.update((tx) => tx.create('task', { ...aTask(serviceId), ...change }));
  }

  use(network: Network) {
    const { taskAddresses, serviceAddresses, capacity, inUse } = getNetwork(this.store.view, {
      network: network.id,
      verbose: false,
    }).use;
    return { taskAddresses, serviceAddresses, capacity, inUse };
  }

  get names(): string[] {
    return listNetworks(this.store.view).networks.map(({ network }) => network.spec.name);
  }
}

test('a network is answered for when it has its number and its addresses', async () => {
  const world = await World.create();

  const front = await world.network('front');

  assert.ok(front.vni > 0);
  assert.deepEqual(front.subnets, [subnet('10.0.1.0/24', { gateway: '10.0.1.1' })]);
  assert.deepEqual(front.spec.subnets, []);
});

test('a network that nobody gives addresses is shown as it is after five seconds', async () => {
  const world = await World.create({ hasAllocator: false });
  let isAnswered = false;
  const created = world.network('front').finally(() => {
    isAnswered = true;
  });

  await new Promise(setImmediate);
  world.clock.advance(4_999);
  await new Promise(setImmediate);
  assert.equal(isAnswered, false);
  world.clock.advance(1);

  assert.deepEqual((await created).subnets, []);
});

test('who asks and goes away is not waited for', async () => {
  const world = await World.create({ hasAllocator: false });
  const caller = new AbortController();
  const created = createNetwork(world.options, { ...emptyNetworkSpec, name: 'front' }, caller.signal);
  await new Promise(setImmediate);

  caller.abort();

  assert.equal((await created).network.spec.name, 'front');
});

test('networks that hold options, or get them on the nodes, wait for no addresses', async () => {
  const world = await World.create({ hasAllocator: false });

  await world.network('lan', { configOnly: true, options: { parent: 'eth1' } });
  await world.network('office', { driver: 'macvlan', configFrom: 'lan' });

  assert.deepEqual(world.names, ['lan', 'office']);
});

test('a network that cannot have what it needs is taken out again, and the reason is told', async () => {
  const world = await World.create();
  world.allocator?.refusals.set('front', 'no subnet of the pools 10.0.0.0/8 is free');
  world.allocator?.refusals.set('back', 'subnet 10.9.0.0/24 is used by the nodes');

  await assert.rejects(world.network('front'), {
    code: 'resource-exhausted',
    message: 'network front: no subnet of the pools 10.0.0.0/8 is free',
  });
  await assert.rejects(world.network('back', { subnets: [subnet('10.9.0.0/24')] }), {
    code: 'failed-precondition',
  });

  assert.deepEqual(world.names, []);
});

test('a network is found by its id, a prefix of it that is unique, and its name', async () => {
  const world = await World.create();
  const front = await world.network('Front');
  const back = await world.network('back');
  const { view } = world.store;
  let shared = 0;
  while (front.id[shared] === back.id[shared]) shared++;

  assert.equal(findNetwork(view, front.id), view.network.get(front.id));
  assert.equal(findNetwork(view, front.id.slice(0, shared + 1)).id, front.id);
  assert.equal(findNetwork(view, 'fRONT').id, front.id);
  assert.throws(() => findNetwork(view, 'nosuch'), {
    code: 'not-found',
    message: 'network nosuch not found',
  });
});

test('addresses are stored in the one way that they are written', async () => {
  const world = await World.create();

  const front = await world.network('front', {
    ipv6: true,
    subnets: [subnet('FD00:0::/64', { gateway: 'fd00:0:0::1', auxiliaryAddresses: { r: 'FD00::A' } })],
  });

  assert.deepEqual(front.spec.subnets, [
    subnet('fd00::/64', { gateway: 'fd00::1', auxiliaryAddresses: { r: 'fd00::a' } }),
  ]);
});

test('what another network has is refused', async () => {
  const world = await World.create();
  await world.network('front', { vni: 5000 });
  await world.network('back', { subnets: [subnet('10.5.0.0/16')] });
  await world.network('entry', { ingress: true });
  const cases: [Partial<NetworkSpec>, string, RegExp][] = [
    [{ name: 'FRONT' }, 'already-exists', /^network with name FRONT already exists/],
    [{ ingress: true }, 'already-exists', /^ingress: network entry is the ingress network already/],
    [
      { subnets: [subnet('10.5.7.0/24')] },
      'failed-precondition',
      /^subnet: 10.5.7.0\/24 overlaps with 10.5.0.0\/16 of network back/,
    ],
    [
      { subnets: [subnet('10.0.0.0/22')] },
      'failed-precondition',
      /overlaps with 10.0.1.0\/24 of network front/,
    ],
    [{ vni: 5000 }, 'invalid-argument', /^opt: vxlanid_list: 5000 is that of network front/],
    [
      { driver: 'macvlan', configFrom: 'front' },
      'invalid-argument',
      /^config-from: there is no config-only network front/,
    ],
    [{ mtu: 5 }, 'invalid-argument', /^mtu: 5/],
    [{ labels: { big: 'x'.repeat(600_000) } }, 'invalid-argument', /^spec: the whole spec has \d+ bytes/],
  ];
  for (const [change, code, message] of cases)
    await assert.rejects(
      world.network('other', change),
      { code, message },
      JSON.stringify(change).slice(0, 80),
    );
  assert.deepEqual(world.names, ['front', 'back', 'entry']);
});

test('options for the nodes may name a subnet that a network has', async () => {
  const world = await World.create();
  await world.network('front', { subnets: [subnet('192.168.1.0/24')] });

  await world.network('lan', { configOnly: true, subnets: [subnet('192.168.1.0/24')] });

  assert.deepEqual(world.names, ['front', 'lan']);
});

test('of two that want the same at once one gets it', async () => {
  const world = await World.create();
  world.log.isHeld = true;
  const pair = ['one', 'two'].map((name) => world.network(name, { subnets: [subnet('10.5.0.0/24')] }));
  await new Promise(setImmediate);
  world.log.release();

  const [one, two] = await Promise.allSettled(pair);

  assert.equal(one?.status, 'fulfilled');
  assert.match(String(two?.status === 'rejected' && two.reason), /overlaps with 10.5.0.0\/24 of network one/);
});

test('a network that is in use stays, and who uses it is named', async () => {
  const world = await World.create();
  const [front, back, entry] = [
    await world.network('front'),
    await world.network('back'),
    await world.network('entry', { ingress: true }),
  ];
  await world.network('lan', { configOnly: true });
  await world.network('office', { driver: 'macvlan', configFrom: 'lan' });
  for (const name of ['web', 'api', 'db', 'log']) await world.service(name, ['front']);
  const shop = await world.service('shop', [], { ports: [ingressPort(8080)] });
  await world.task('gone', { slot: 3, attachments: [{ networkId: back.id, addresses: ['10.0.2.9'] }] });

  for (const [name, message] of [
    ['front', /^network front is in use by service web, service api, service db and 1 more$/],
    ['back', /^network back is in use by task gone.3$/],
    ['entry', /^network entry is in use by service shop$/],
    ['lan', /^network lan is in use by network office$/],
  ] as const)
    await assert.rejects(removeNetwork(world.options, name), { code: 'failed-precondition', message }, name);
  assert.equal(world.use(front).inUse, true);
  assert.equal(world.use(entry).inUse, true);
  assert.ok(shop.id);
});

test('a network goes when its last task has ended', async () => {
  const world = await World.create();
  const front = await world.network('front');
  await world.service('web', ['front']);
  const web = world.store.view.byName('service', 'web') as Service;
  await world.task(web.id, { id: 'old', specVersion: 1, attachments: [] });
  await world.respecify(web, { ...web.spec, task: { ...web.spec.task, networks: [] } });
  await assert.rejects(removeNetwork(world.options, 'front'), {
    message: 'network front is in use by task web.1',
  });

  await world.store.update((tx) => {
    const task = tx.view.task.get('old') as Task;
    tx.update('task', { ...task, status: { ...task.status, state: 'shutdown' } });
  });

  assert.equal(await removeNetwork(world.options, front.id), front.id);
  assert.deepEqual(world.names, []);
});

test('what a network is made of stays, its labels and its policy do not', async () => {
  const world = await World.create();
  const front = await world.network('front', { mtu: 1400 });

  const changed = await world.change(front, { labels: { a: '1' }, policy: { allow: [] } });

  assert.deepEqual([changed.spec.labels, changed.spec.policy], [{ a: '1' }, { allow: [] }]);
  const cases: [Partial<NetworkSpec>, RegExp][] = [
    [{ name: 'rear' }, /^name: network front keeps what it was made with/],
    [{ mtu: 1300 }, /^mtu: /],
    [{ internal: true }, /^internal: /],
    [{ encrypted: true }, /^encrypted: /],
    [{ attachable: true }, /^attachable: /],
    [{ ingress: true }, /^ingress: /],
    [{ ipv6: true }, /^ipv6: /],
    [{ vni: 9 }, /^opt: vxlanid_list: /],
    [{ driver: 'macvlan', options: { parent: 'eth0' } }, /^driver: /],
    [{ configOnly: true }, /^config-only: /],
  ];
  for (const [change, message] of cases)
    await assert.rejects(world.change(front, change), { code: 'invalid-argument', message });
});

test('whoever changes an old state of a network is told so', async () => {
  const world = await World.create();
  const front = await world.network('front');
  await world.change(front, { labels: { a: '1' } });

  const late = { networkId: front.id, version: front.meta.version, spec: { ...front.spec, mtu: 9 } };

  await assert.rejects(updateNetwork(world.options, late), { code: 'invalid-argument' });
  await assert.rejects(updateNetwork(world.options, { ...late, spec: { ...front.spec, internal: true } }), {
    code: 'out-of-sequence',
  });
});

test('subnets are added and widened, never taken away', async () => {
  const world = await World.create();
  await world.network('other', { subnets: [subnet('10.9.0.0/16')] });
  const own = await world.network('own', {
    subnets: [subnet('10.5.0.0/24', { gateway: '10.5.0.1', auxiliaryAddresses: { r: '10.5.0.2' } })],
  });
  const [first] = own.spec.subnets as [Subnet];
  const wider = { ...first, subnet: '10.5.0.0/23' };

  const added = await world.change(own, { subnets: [first, subnet('10.6.0.0/24')] });
  const widened = await world.change(added, { subnets: [subnet('10.6.0.0/24'), { ...wider, gateway: '' }] });

  assert.deepEqual(added.spec.subnets, [first, subnet('10.6.0.0/24')]);
  assert.deepEqual(widened.spec.subnets, [wider, subnet('10.6.0.0/24')]);
  const cases: [readonly Subnet[], RegExp][] = [
    [[], /^subnet: 10.5.0.0\/23 cannot be taken away/],
    [[{ ...first, subnet: '10.5.0.0/25' }], /^subnet: 10.5.0.0\/25 is less than 10.5.0.0\/23/],
    [[{ ...wider, gateway: '10.5.0.3' }], /^gateway: 10.5.0.1 of 10.5.0.0\/23 stays/],
    [[{ ...wider, auxiliaryAddresses: {} }], /^aux-address: those of 10.5.0.0\/23 stay/],
    [[{ ...wider, ipRange: '10.5.1.0/24' }], /^ip-range: 10.5.0.0\/23 can only be widened/],
    [
      [wider, subnet('10.6.0.0/24'), subnet('10.9.1.0/24')],
      /^subnet: 10.9.1.0\/24 overlaps with 10.9.0.0\/16 of network other/,
    ],
    [[wider, subnet('10.5.1.0/24')], /^subnet: 10.5.1.0\/24 overlaps with 10.5.0.0\/23/],
  ];
  for (const [subnets, message] of cases) await assert.rejects(world.change(own, { subnets }), { message });
});

test('a subnet that the managers chose becomes part of the spec with the first that is added', async () => {
  const world = await World.create();
  const front = await world.network('front');

  const labelled = await world.change(front, { labels: { a: '1' } });
  const added = await world.change(labelled, { subnets: [subnet('10.7.0.0/24')] });

  assert.deepEqual(labelled.spec.subnets, []);
  assert.deepEqual(added.spec.subnets, [
    subnet('10.0.1.0/24', { gateway: '10.0.1.1' }),
    subnet('10.7.0.0/24'),
  ]);
  await assert.rejects(world.change(front, { subnets: [subnet('10.0.0.0/8')] }), {
    message: /10.0.0.0\/8 is over/,
  });
});

test('how full a network is counts addresses that tasks and services have, of those that can be given out', async () => {
  const world = await World.create();
  const front = await world.network('front', {
    ipv6: true,
    subnets: [
      subnet('10.5.0.0/24', {
        ipRange: '10.5.0.0/26',
        auxiliaryAddresses: { a: '10.5.0.9', far: '10.5.0.200' },
      }),
      subnet('10.6.0.0/29'),
      subnet('fd00::/64'),
    ],
  });
  const empty = world.use(front);
  const web = await world.service('web', ['front']);
  const attachments = [{ networkId: front.id, addresses: ['10.5.0.7', 'fd00::7'] }];
  const ended = aTask('x', { state: 'failed' }).status;
  await world.task(web.id, { attachments });
  await world.task(web.id, { attachments, status: ended });

  // Of the range go its first address, the gateway and one withheld; of the /29 first, last and gateway.
  assert.deepEqual(empty, { taskAddresses: 0, serviceAddresses: 0, capacity: 61 + 5, inUse: false });
  assert.deepEqual(world.use(front), { taskAddresses: 1, serviceAddresses: 1, capacity: 66, inUse: true });
});

test('a closer look shows services and tasks of the network, and nobody else', async () => {
  const world = await World.create();
  const front = await world.network('front');
  const back = await world.network('back');
  const web = await world.service('web', ['front', 'back']);
  await world.service('db', ['back']);
  await world.task(web.id, { id: 'inside', attachments: [{ networkId: front.id, addresses: ['10.0.1.7'] }] });
  await world.task(web.id, { id: 'outside', attachments: [{ networkId: back.id, addresses: ['10.0.2.7'] }] });

  const { services, tasks } = getNetwork(world.store.view, { network: 'front', verbose: true });

  assert.deepEqual([services.map(({ spec }) => spec.name), tasks.map(({ id }) => id)], [['web'], ['inside']]);
});

test("a service's networks are stored by id, and each node's own by name", async () => {
  const world = await World.create();
  const front = await world.network('front');
  const back = await world.network('back');

  const web = await world.service('web', ['Front', back.id.slice(0, 20), 'bridge']);
  const host = await world.service('agent', ['host']);

  assert.deepEqual(
    web.spec.task.networks.map(({ networkId }) => networkId),
    [front.id, back.id, 'bridge'],
  );
  assert.equal(host.spec.task.networks[0]?.networkId, 'host');
  const revision = world.store.view.revisionsOfService(web.id)[0];
  assert.deepEqual(revision?.spec, web.spec);
});

test('networks that a service cannot be part of are refused by name', async () => {
  const world = await World.create();
  const front = await world.network('front', { subnets: [subnet('10.5.0.0/24', { gateway: '10.5.0.1' })] });
  await world.network('entry', { ingress: true });
  await world.network('lan', { configOnly: true });
  const db = await world.service('db', [{ networkId: 'front', virtualAddresses: ['10.5.0.9'] }]);
  await world.task(db.id, { attachments: [{ networkId: front.id, addresses: ['10.5.0.20'] }] });
  const vip = (address: string) => [{ networkId: 'front', virtualAddresses: [address] }];
  const cases: [readonly (string | Partial<NetworkAttachment>)[], RegExp][] = [
    [['nosuch'], /^network nosuch not found$/],
    [['front', front.id], /^network: front is used twice/],
    [['entry'], /^network: entry is the ingress network/],
    [['lan'], /^network: lan is config-only/],
    [vip('10.6.0.9'), /^network: vip: 10.6.0.9 must be an address of network front: 10.5.0.0\/24/],
    [vip('10.5.0.255'), /^network: vip: 10.5.0.255 must be an address of network front/],
    [vip('10.5.0.1'), /^network: vip: 10.5.0.1 is the gateway of network front/],
    [vip('10.5.0.9'), /^network: vip: 10.5.0.9 of network front is in use by service db/],
    [vip('10.5.0.20'), /^network: vip: 10.5.0.20 of network front is in use by task db.1/],
  ];
  for (const [networks, message] of cases) await assert.rejects(world.service('web', networks), { message });
  assert.equal(world.store.view.byName('service', 'web'), undefined);
});

test('addresses of a service are stored in the one way that they are written', async () => {
  const world = await World.create();
  await world.network('front', { ipv6: true, subnets: [subnet('fd00::/64')] });

  const { spec } = await world.service('web', [{ networkId: 'front', virtualAddresses: ['FD00:0::00A'] }], {
    ports: [ingressPort(80, { hostAddress: 'FD01::0:1' })],
  });

  assert.deepEqual(spec.task.networks[0]?.virtualAddresses, ['fd00::a']);
  assert.equal(spec.endpoint.ports[0]?.hostAddress, 'fd01::1');
});

test('a service keeps its address through an update', async () => {
  const world = await World.create();
  await world.network('front');
  const db = await world.service('db', [{ networkId: 'front', virtualAddresses: ['10.0.1.9'] }]);

  const { service } = await world.respecify(db, { ...db.spec, labels: { a: '1' } });

  assert.deepEqual(service.spec.task.networks[0]?.virtualAddresses, ['10.0.1.9']);
});

test('a port of the routing mesh belongs to one service', async () => {
  const world = await World.create();
  await world.service('web', [], {
    ports: [ingressPort(80), ingressPort(0), ingressPort(443, { hostAddress: '10.0.0.1' })],
  });
  await world.service('agent', [], { ports: [ingressPort(9100, { publishMode: 'host' })] });
  await world.allocator?.stop();
  const cases: [PortConfig, RegExp | undefined][] = [
    [
      ingressPort(80),
      /^publish: port 80\/tcp is already in use by service 'web' \([0-9a-z]{25}\) as an ingress port/,
    ],
    [ingressPort(80, { publishMode: 'host' }), /as an ingress port/],
    [ingressPort(80, { hostAddress: '10.0.0.1' }), /as an ingress port/],
    [ingressPort(30_001), /port 30001\/tcp is already in use by service 'web'/],
    [ingressPort(9100), /port 9100\/tcp is already in use by service 'agent' .* as a port of its nodes/],
    [ingressPort(443), /port 443\/tcp is already in use/],
    [ingressPort(443, { hostAddress: '10.0.0.1' }), /port 443\/tcp is already in use/],
    [ingressPort(443, { hostInterface: 'eth0' }), /port 443\/tcp is already in use/],
    [ingressPort(443, { hostAddress: '10.0.0.2' }), undefined],
    [ingressPort(9100, { publishMode: 'host' }), undefined],
    [ingressPort(80, { protocol: 'udp' }), undefined],
    [ingressPort(0), undefined],
  ];
  for (const [index, [port, message]] of cases.entries()) {
    const created = world.service(`other${index}`, [], { ports: [port] });
    if (message === undefined) assert.deepEqual((await created).spec.endpoint.ports, [port]);
    else await assert.rejects(created, { code: 'failed-precondition', message }, `case ${index}`);
  }
});

test('a rollback to a port or a network that is gone meanwhile is refused', async () => {
  const world = await World.create();
  await world.network('front');
  const web = await world.service('web', ['front'], { ports: [ingressPort(80)] });
  const bare = { ...web.spec, task: { ...web.spec.task, networks: [] } };
  await world.respecify(web, { ...bare, endpoint: { ...bare.endpoint, ports: [] } });
  await world.allocator?.stop();
  const shop = await world.service('shop', [], { ports: [ingressPort(80)] });

  await assert.rejects(world.respecify(web, undefined), {
    message: /port 80\/tcp is already in use by service 'shop'/,
  });
  await world.respecify(shop, { ...shop.spec, endpoint: { ...shop.spec.endpoint, ports: [] } });
  await removeNetwork(world.options, 'front');
  await assert.rejects(world.respecify(web, undefined), { code: 'not-found' });
});
