import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  emptyNetwork,
  emptyNetworkSpec,
  emptyPortConfig,
  emptySubnet,
  type Network,
  type NetworkSpec,
} from '../../core/generated/objects.ts';
import {
  type Assignments,
  emptyAssignments,
  emptyNetworkEndpoint,
  emptyNetworkService,
  emptyNetworkUpdate,
  emptyNodeLocation,
  type NetworkEndpoint,
  type NetworkService,
  type NetworkUpdate,
} from '../../proto/generated/dispatcher.ts';
import { NetworkBook } from './network-book.ts';

const HERE = 'n1';
const NODES = [HERE, 'n2', 'n3'].map((nodeId, index) => ({
  nodeId,
  dataPathAddress: `192.0.2.${index + 1}`,
  tunnelAddress: `100.64.0.${index + 1}`,
  tunnelKey: '',
}));

function network(spec: Partial<NetworkSpec> = {}): Network {
  return {
    ...emptyNetwork,
    id: 'net',
    spec: { ...emptyNetworkSpec, name: 'net', ...spec },
    vni: 0x100000,
    subnets: [{ ...emptySubnet, subnet: '10.0.1.0/24', gateway: '10.0.1.1' }],
  };
}

function service(name: string, change: Partial<NetworkService> = {}): NetworkService {
  return { ...emptyNetworkService, serviceId: name, name, virtualAddresses: ['10.0.1.2'], ...change };
}

function endpoint(taskId: string, nodeId: string, change: Partial<NetworkEndpoint> = {}): NetworkEndpoint {
  const addresses = [`10.0.1.${10 + Number(taskId.slice(1))}`];
  return {
    ...emptyNetworkEndpoint,
    taskId,
    serviceId: 'web',
    nodeId,
    slot: 1,
    addresses,
    serving: true,
    weight: 1,
    ...change,
  };
}

function complete(update: Partial<NetworkUpdate>, spec: Partial<NetworkSpec> = {}): Assignments {
  const networks = [
    {
      ...emptyNetworkUpdate,
      networkId: 'net',
      complete: true,
      network: network(spec),
      dataPathPort: 4789,
      ...update,
    },
  ];
  return { ...emptyAssignments, complete: true, networks, nodes: NODES };
}

function change(update: Partial<NetworkUpdate>): Assignments {
  return { ...emptyAssignments, networks: [{ ...emptyNetworkUpdate, networkId: 'net', ...update }] };
}

function heard(update: Partial<NetworkUpdate>, spec: Partial<NetworkSpec> = {}): NetworkBook {
  const book = new NetworkBook(HERE);
  book.hear(complete(update, spec));
  return book;
}

test('tasks elsewhere are remotes by their nodes; those that serve are backends, wherever they are', () => {
  const book = heard({
    services: [service('web')],
    endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2'), endpoint('t3', 'n3', { serving: false })],
  });
  const { remotes, services } = book.overlayState('net');
  assert.deepEqual(remotes, [
    { address: '10.0.1.12', nodeAddress: '192.0.2.2' },
    { address: '10.0.1.13', nodeAddress: '192.0.2.3' },
  ]);
  assert.deepEqual(services, [{ vip: '10.0.1.2', backends: ['10.0.1.11', '10.0.1.12'] }]);
});

test('with IPv6 each virtual address has backends of its own family, and the rest knows both', () => {
  const both = (last: number) => [`10.0.1.${last}`, `fd00:1::${last}`];
  const web = service('web', { virtualAddresses: both(2) });
  const update = {
    services: [web],
    endpoints: [
      endpoint('t1', HERE, { addresses: both(11) }),
      endpoint('t2', 'n2', { addresses: both(12), weight: 3 }),
    ],
  };
  const subnets = [
    { ...emptySubnet, subnet: '10.0.1.0/24', gateway: '10.0.1.1' },
    { ...emptySubnet, subnet: 'fd00:1::/64', gateway: 'fd00:1::1' },
  ];
  const book = heard({ ...update, network: { ...network({ ipv6: true }), subnets } });

  assert.deepEqual(
    book.overlayNetwork('net')?.subnets,
    subnets.map(({ subnet, gateway }) => ({ subnet, gateway })),
  );
  const { remotes, services, names } = book.overlayState('net');
  assert.deepEqual(
    remotes.map(({ address }) => address),
    both(12),
  );
  assert.deepEqual(services, [
    { vip: '10.0.1.2', backends: ['10.0.1.11', '10.0.1.12'], weights: [1, 3] },
    { vip: 'fd00:1::2', backends: ['fd00:1::11', 'fd00:1::12'], weights: [1, 3] },
  ]);
  const addresses = new Map(names.flat().map((record) => [record.name, record.addresses]));
  assert.deepEqual(addresses.get('web'), both(2));
  assert.deepEqual(addresses.get('tasks.web'), [...both(11), ...both(12)]);
});

test('a service is named by its address, its tasks by theirs, and each task by its own name', () => {
  const book = heard({
    services: [service('web', { aliases: ['www'] }), service('db', { virtualAddresses: [] })],
    endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2', { serviceId: 'db', slot: 4 })],
  });
  const names = Object.fromEntries(
    book
      .overlayState('net')
      .names.flat()
      .map(({ name, addresses }) => [name, addresses]),
  );
  assert.deepEqual(names, {
    web: ['10.0.1.2'],
    www: ['10.0.1.2'],
    'tasks.web': ['10.0.1.11'],
    'web.1.t1': ['10.0.1.11'],
    db: ['10.0.1.12'],
    'tasks.db': ['10.0.1.12'],
    'db.4.t2': ['10.0.1.12'],
  });
});

test('a task of this node that leaves is no backend any more, before the managers say so', () => {
  const book = heard({ services: [service('web')], endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2')] });
  assert.deepEqual(book.leave('t1'), ['net']);
  assert.deepEqual(book.overlayState('net').services[0]?.backends, ['10.0.1.12']);
});

test('an encrypted network reaches other nodes inside the tunnel', () => {
  const book = heard({ services: [service('web')], endpoints: [endpoint('t2', 'n2')] }, { encrypted: true });
  assert.deepEqual(book.overlayState('net').remotes, [{ address: '10.0.1.12', nodeAddress: '100.64.0.2' }]);
});

test('who has stopped serving and is still there is told once', () => {
  const book = heard({ services: [service('web')], endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2')] });
  book.hear(change({ endpoints: [endpoint('t2', 'n2', { serving: false })], removedTaskIds: ['t1'] }));
  const stopped = book.takeStopped().map(([id, [left]]) => [id, left?.addresses]);
  assert.deepEqual(stopped, [['net', ['10.0.1.12']]]);
  assert.deepEqual(book.takeStopped(), []);
});

test('who has stopped serving while this node heard nothing is told when it hears all again', () => {
  const services = [service('web')];
  const book = heard({ services, endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2')] });
  book.hear(
    complete({ services, endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2', { serving: false })] }),
  );
  assert.deepEqual(
    book.takeStopped().map(([, stopped]) => stopped.map(({ taskId }) => taskId)),
    [['t2']],
  );
});

test('of those that stopped serving, who is gone or serves again by the time of asking is not told', () => {
  const serving = [endpoint('t1', HERE), endpoint('t2', 'n2'), endpoint('t3', 'n2')];
  const book = heard({ services: [service('web')], endpoints: serving });
  for (const { taskId, nodeId } of serving)
    book.hear(change({ endpoints: [endpoint(taskId, nodeId, { serving: false })] }));
  book.hear(change({ endpoints: [endpoint('t2', 'n2')], removedTaskIds: ['t1'] }));
  assert.deepEqual(
    book.takeStopped().map(([, stopped]) => stopped.map(({ taskId }) => taskId)),
    [['t3']],
  );
});

test('a bridge ends at its node', () => {
  const facts = { services: [service('web')], endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2')] };
  const { remotes, services } = heard(facts, { driver: 'bridge' }).overlayState('net');
  assert.deepEqual([remotes, services[0]?.backends], [[], ['10.0.1.11']]);
});

test('a published port leads to all tasks, those here as long as there are any, or only those', () => {
  const ports = (['any', 'prefer', 'only'] as const).map((locality, index) => ({
    ...emptyPortConfig,
    publishedPort: 8080 + index,
    targetPort: 80,
    locality,
  }));
  const facts = {
    services: [service('web', { ports })],
    endpoints: [endpoint('t1', HERE), endpoint('t2', 'n2')],
  };
  const book = heard(facts, { ingress: true });
  const backends = () =>
    book.overlayState('net').published?.map((port) => port.backends.map(({ address }) => address));
  const [here, there] = ['10.0.1.11', '10.0.1.12'];
  assert.deepEqual(backends(), [[here, there], [here], [here]]);
  book.leave('t1');
  assert.deepEqual(backends(), [[there], [there], []]);
  assert.deepEqual(book.overlayState('net').nodes, ['192.0.2.2', '192.0.2.3']);
});

test('a task here that does not serve yet is open to other nodes all the same', () => {
  const ports = [{ ...emptyPortConfig, publishedPort: 8080, targetPort: 80 }];
  const book = heard(
    { services: [service('web', { ports })], endpoints: [endpoint('t1', HERE, { serving: false })] },
    { ingress: true },
  );
  const [port] = book.overlayState('net').published ?? [];
  assert.deepEqual([port?.backends, port?.here], [[], [{ address: '10.0.1.11', port: 80 }]]);
});

test('affinity and weights go with the service', () => {
  const book = heard({
    services: [service('web', { affinity: 'client-address' })],
    endpoints: [endpoint('t1', HERE, { weight: 3 }), endpoint('t2', 'n2')],
  });
  const [virtual] = book.overlayState('net').services;
  assert.deepEqual([virtual?.affinity, virtual?.weights], ['client-address', [3, 1]]);
});

test('a policy names groups of addresses; "*" is every service', () => {
  const policy = { allow: [{ from: '*', to: 'web', protocol: 'tcp' as const, port: 80 }] };
  const book = heard(
    { services: [service('web'), service('db')], endpoints: [endpoint('t1', HERE)] },
    { policy },
  );
  const port = { protocol: 'tcp', number: 80 };
  assert.deepEqual(book.overlayState('net').policy, {
    groups: [
      { name: 'web', addresses: ['10.0.1.11'] },
      { name: 'db', addresses: [] },
    ],
    allow: [
      { from: 'web', to: 'web', port },
      { from: 'db', to: 'web', port },
    ],
  });
});

test('what did not change is the same object as before', () => {
  const book = heard({
    services: [service('web'), service('db')],
    endpoints: [endpoint('t1', 'n2'), endpoint('t2', 'n2', { serviceId: 'db' })],
  });
  const before = book.overlayState('net');
  book.hear(change({ endpoints: [endpoint('t2', 'n2', { serviceId: 'db', serving: false })] }));
  const after = book.overlayState('net');
  assert.equal(after.remotes, before.remotes);
  assert.equal(after.services[0], before.services[0]);
  assert.notEqual(after.services[1], before.services[1]);
});

test('a complete message replaces what was known; differences to an unknown network are ignored', () => {
  const book = heard({ services: [service('web')], endpoints: [endpoint('t1', HERE)] });
  book.hear(complete({ services: [service('db')] }));
  assert.deepEqual(
    book
      .overlayState('net')
      .names.flat()
      .map(({ name }) => name),
    ['db', 'tasks.db'],
  );
  assert.deepEqual(book.hear({ ...emptyAssignments, complete: true }), new Set(['net']));
  assert.deepEqual(book.hear(change({ services: [service('web')] })), new Set());
});

const step = fc.record({
  what: fc.constantFrom('put', 'drop', 'service', 'drop-service', 'node', 'leave', 'network'),
  number: fc.integer({ min: 0, max: 5 }),
  node: fc.constantFrom(HERE, 'n2', 'n3'),
  flag: fc.boolean(),
});

test('after any changes the state is what the next process makes of the memory', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const book = heard({}, { ingress: true });
      for (const { what, number, node, flag } of steps) {
        const [taskId, serviceId] = [`t${number}`, ['web', 'db'][number % 2] as string];
        const ports = flag ? [{ ...emptyPortConfig, publishedPort: 80, targetPort: 80 }] : [];
        if (what === 'put')
          book.hear(change({ endpoints: [endpoint(taskId, node, { serviceId, serving: flag })] }));
        else if (what === 'drop') book.hear(change({ removedTaskIds: [taskId] }));
        else if (what === 'service') book.hear(change({ services: [service(serviceId, { ports })] }));
        else if (what === 'drop-service') book.hear(change({ removedServiceIds: [serviceId] }));
        else if (what === 'node')
          book.hear({
            ...emptyAssignments,
            nodes: [{ ...emptyNodeLocation, nodeId: node, dataPathAddress: `192.0.2.${number + 1}` }],
          });
        else if (what === 'network')
          book.hear(change({ network: network({ ingress: flag }), dataPathPort: 4789 }));
        else if (book.hasServed(taskId)) {
          // The managers hear of it as well, a moment later.
          book.leave(taskId);
          book.overlayState('net');
          book.hear(change({ endpoints: [endpoint(taskId, node, { serviceId, serving: false })] }));
        }
        const next = new NetworkBook(HERE);
        next.hear(book.memory());
        assert.deepEqual(sorted(book), sorted(next));
      }
    }),
  );
});

function sorted(book: NetworkBook): unknown {
  const { remotes, services, names, published = [], nodes = [] } = book.overlayState('net');
  const lists = [remotes, services, names, published, nodes].map((list) =>
    list.map((item) => JSON.stringify(item)).sort(),
  );
  return [...lists, book.overlayNetwork('net')];
}
