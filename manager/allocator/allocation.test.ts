import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { defaultClusterNetwork, defaultClusterSpec } from '../../core/defaults.ts';
import {
  emptyClusterSecrets,
  emptyMeta,
  emptyNetwork,
  emptyNetworkSpec,
  emptyPortConfig,
  emptySubnet,
  type Network,
  type NetworkSpec,
  type PortConfig,
  type Service,
  type Task,
} from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import type { Kind, Kinds, Tables } from '../store/tables.ts';
import { RESERVED_MS } from './address-space.ts';
import { Allocation } from './allocation.ts';
import { NotYet } from './not-yet.ts';

function cluster(): Tables {
  const tables = tablesOf([], []);
  tables.put('cluster', {
    id: 'c',
    meta: emptyMeta,
    spec: defaultClusterSpec,
    secrets: emptyClusterSecrets,
    network: defaultClusterNetwork,
  });
  return tables;
}

/** Makes the network and gives it what it lacks. */
function addNetwork(tables: Tables, id: string, spec: Partial<NetworkSpec> = {}): Network {
  const network = { ...emptyNetwork, id, spec: { ...emptyNetworkSpec, name: id, ...spec } };
  const allocated = new Allocation(tables).network(network) ?? network;
  tables.put('network', allocated);
  return allocated;
}

function service(
  id: string,
  change: { ports?: readonly Partial<PortConfig>[]; vip?: string; dnsrr?: true } = {},
): Service {
  return aServiceObject(id, 1, (spec) => ({
    ...spec,
    task: {
      ...spec.task,
      networks: [
        { networkId: 'net', aliases: [], virtualAddresses: change.vip ? [change.vip] : [], options: {} },
      ],
    },
    endpoint: {
      ...spec.endpoint,
      mode: change.dnsrr ? 'dnsrr' : 'vip',
      ports: (change.ports ?? []).map((port) => ({ ...emptyPortConfig, targetPort: 80, ...port })),
    },
  }));
}

test('networks get subnets of the pools in turn, leaving out what others have and where the nodes are', () => {
  const tables = cluster();
  tables.put('node', { ...aNode('n1'), dataPathAddress: '10.0.1.9' });
  assert.equal(addNetwork(tables, 'a').subnets[0]?.subnet, '10.0.2.0/24');
  tables.put('node', {
    ...aNode('n1'),
    dataPathAddress: '192.168.0.9',
    status: { ...aNode('n1').status, address: '' },
  });
  assert.equal(addNetwork(tables, 'b').subnets[0]?.subnet, '10.0.0.0/24');
  assert.equal(addNetwork(tables, 'c').subnets[0]?.subnet, '10.0.1.0/24');
  const { subnets } = addNetwork(tables, 'd');
  assert.deepEqual(subnets, [{ ...emptySubnet, subnet: '10.0.3.0/24', gateway: '10.0.3.1' }]);
});

test('each network has a number of its own, which is not used again at once', () => {
  const tables = cluster();
  const [a, b] = [addNetwork(tables, 'a'), addNetwork(tables, 'b')];
  assert.equal(b.vni, a.vni + 1);
  tables.delete('network', 'a');
  assert.equal(addNetwork(tables, 'c').vni, b.vni + 1);
});

test('the MTU is what the node with the smallest carries, less the overhead', () => {
  const tables = cluster();
  const node = aNode('n1');
  tables.put('node', { ...node, description: { ...node.description, dataPathMtu: 1400 } });
  tables.put('node', { ...aNode('n2'), description: { ...node.description, dataPathMtu: 9000 } });
  assert.equal(addNetwork(tables, 'a').mtu, 1350);
  assert.equal(addNetwork(tables, 'b', { mtu: 1200 }).mtu, 1200);
});

test('a network that no subnet is left for says so', () => {
  const tables = cluster();
  const [{ network, ...rest }] = [...tables.cluster.values()] as [Kinds['cluster']];
  tables.put('cluster', { ...rest, network: { ...network, addressPools: ['10.7.0.0/24'] } });
  addNetwork(tables, 'a');
  const refused = addNetwork(tables, 'b');
  assert.match(refused.error, /no free subnet: the address pools \(10\.7\.0\.0\/24\) have no \/24 left/);
  assert.deepEqual(refused.subnets, []);
});

test('a subnet that is added widens a network whose first one was chosen', () => {
  const tables = cluster();
  const network = addNetwork(tables, 'net');
  const subnets = [{ ...emptySubnet, subnet: '10.9.0.0/24' }];
  const wider = new Allocation(tables).network({ ...network, spec: { ...network.spec, subnets } });
  assert.deepEqual(
    wider?.subnets.map(({ subnet, gateway }) => `${subnet} ${gateway}`),
    ['10.0.1.0/24 10.0.1.1', '10.9.0.0/24 10.9.0.1'],
  );
});

test('a subnet that covers the chosen one takes its place and keeps its gateway', () => {
  const tables = cluster();
  const network = addNetwork(tables, 'net');
  const subnets = [{ ...emptySubnet, subnet: '10.0.0.0/23' }];
  const wider = new Allocation(tables).network({ ...network, spec: { ...network.spec, subnets } });
  assert.deepEqual(wider?.subnets, [{ ...emptySubnet, subnet: '10.0.0.0/23', gateway: '10.0.1.1' }]);
});

test('a network with IPv6 gets a unique local subnet, and its services and tasks two addresses', () => {
  const tables = cluster();
  const network = addNetwork(tables, 'net', { ipv6: true });
  assert.match(network.subnets[1]?.subnet ?? '', /^fd[0-9a-f:]+::\/64$/);
  const allocation = new Allocation(tables);
  const web = service('web');
  assert.equal(allocation.service(web, NOW_MS)?.virtualAddresses.length, 2);
  assert.equal(allocation.task(aTask('web'), web.spec, NOW_MS)[0]?.addresses.length, 2);
});

test('a service has one address in each network, unless its name is those of its tasks', () => {
  const tables = cluster();
  addNetwork(tables, 'net');
  const allocation = new Allocation(tables);
  assert.deepEqual(allocation.service(service('web'), NOW_MS)?.virtualAddresses, [
    { networkId: 'net', address: '10.0.1.2' },
  ]);
  assert.equal(allocation.service(service('db', { dnsrr: true }), NOW_MS), undefined);
});

test('a service gets the address that it asks for, and an error when another has it', () => {
  const tables = cluster();
  addNetwork(tables, 'net');
  const allocation = new Allocation(tables);
  const wanted = service('web', { vip: '10.0.1.77' });
  assert.equal(allocation.service(wanted, NOW_MS)?.virtualAddresses[0]?.address, '10.0.1.77');
  assert.throws(
    () => allocation.service(service('other', { vip: '10.0.1.77' }), NOW_MS),
    /10\.0\.1\.77 is in use/,
  );
});

test('ports without a number get one of their own, which they keep; a taken one is an error', () => {
  const tables = cluster();
  addNetwork(tables, 'net');
  const allocation = new Allocation(tables);
  const web = allocation.service(
    service('web', { ports: [{}, { publishedPort: 8080, targetPort: 81 }] }),
    NOW_MS,
  );
  assert.deepEqual(
    web?.ports.map(({ publishedPort }) => publishedPort),
    [30_000, 8080],
  );
  tables.put('service', web as Service);
  const again = new Allocation(tables).service(web as Service, NOW_MS);
  assert.equal(again, undefined);
  assert.throws(
    () => new Allocation(tables).service(service('other', { ports: [{ publishedPort: 8080 }] }), NOW_MS),
    /port 8080\/tcp is published by another service/,
  );
});

test('a task of a service with published ports is part of the ingress network as well', () => {
  const tables = cluster();
  addNetwork(tables, 'net');
  const web = service('web', { ports: [{ publishedPort: 8080 }] });
  assert.throws(() => new Allocation(tables).task(aTask('web'), web.spec, NOW_MS), /no ingress network/);
  addNetwork(tables, 'mesh', { ingress: true });
  const attachments = new Allocation(tables).task(aTask('web'), web.spec, NOW_MS);
  assert.deepEqual(
    attachments.map(({ networkId }) => networkId),
    ['net', 'mesh'],
  );
});

test('a full network says how full it is and what would help, and gives again what rested', () => {
  const tables = cluster();
  addNetwork(tables, 'net', { subnets: [{ ...emptySubnet, subnet: '10.5.0.0/30' }] });
  const allocation = new Allocation(tables);
  const { spec } = service('web');
  const first = aTask('web');
  const attachments = allocation.task(first, spec, NOW_MS);
  assert.throws(
    () => allocation.task(aTask('web'), spec, NOW_MS),
    /network net has no free address: 1 of 1 in use, all are in use; widen it: tsswarm network update --subnet-add/,
  );
  tables.put('task', { ...first, attachments });
  const ended = { ...first, attachments, status: { ...first.status, state: 'failed' as const } };
  assert.equal(
    allocation.note({ kind: 'task', action: 'updated', object: ended, previous: first }, NOW_MS),
    true,
  );
  assert.throws(() => allocation.task(aTask('web'), spec, NOW_MS), NotYet);
  assert.equal(allocation.nextFreeAtMs(NOW_MS), NOW_MS + RESERVED_MS);
  assert.equal(allocation.task(aTask('web'), spec, NOW_MS + RESERVED_MS)[0]?.addresses[0], '10.5.0.2');
});

test('a network is nearly full from four fifths on', () => {
  const tables = cluster();
  addNetwork(tables, 'net', { subnets: [{ ...emptySubnet, subnet: '10.5.0.0/28' }] });
  const allocation = new Allocation(tables);
  const { spec } = service('web');
  const give = (count: number) => {
    for (let index = 0; index < count; index++) allocation.task(aTask('web'), spec, NOW_MS);
    return allocation.nearlyFull().map(({ network, used, capacity }) => `${network.id} ${used}/${capacity}`);
  };
  assert.deepEqual([give(10), give(1)], [[], ['net 11/13']]);
});

test('a task that lacks an address in one of its networks keeps none in the others', () => {
  const tables = cluster();
  addNetwork(tables, 'net');
  addNetwork(tables, 'mesh', { ingress: true, subnets: [{ ...emptySubnet, subnet: '10.5.0.0/30' }] });
  const allocation = new Allocation(tables);
  const { spec } = service('web', { ports: [{ publishedPort: 8080 }] });
  allocation.task(aTask('web'), spec, NOW_MS);
  assert.throws(() => allocation.task(aTask('web'), spec, NOW_MS), /network mesh has no free address/);
  const plain = service('plain');
  const given = Array.from({ length: 251 }, () =>
    allocation.task(aTask('plain'), plain.spec, NOW_MS + RESERVED_MS),
  );
  assert.equal(new Set(given.map(([first]) => first?.addresses[0])).size, 251);
});

test('who waits for an address in one network does not use up those of another, however often it is tried', () => {
  const tables = cluster();
  addNetwork(tables, 'net', { subnets: [{ ...emptySubnet, subnet: '10.6.0.0/28' }] });
  addNetwork(tables, 'mesh', { ingress: true, subnets: [{ ...emptySubnet, subnet: '10.5.0.0/30' }] });
  const allocation = new Allocation(tables);
  const { spec } = service('web', { ports: [{ publishedPort: 8080 }] });
  allocation.task(aTask('web'), spec, NOW_MS);
  for (let attempt = 0; attempt < 20; attempt++)
    assert.throws(() => allocation.task(aTask('web'), spec, NOW_MS), /network mesh has no free address/);
  assert.equal(allocation.nextFreeAtMs(NOW_MS), undefined, 'nothing rests');
  assert.equal(allocation.task(aTask('plain'), service('plain').spec, NOW_MS)[0]?.addresses.length, 1);
});

test('a service that waits for one of its addresses or ports holds none of the others', () => {
  const tables = cluster();
  addNetwork(tables, 'net', { subnets: [{ ...emptySubnet, subnet: '10.6.0.0/28' }] });
  addNetwork(tables, 'full', { subnets: [{ ...emptySubnet, subnet: '10.5.0.0/30' }] });
  const allocation = new Allocation(tables);
  const inFull = { networkId: 'full', aliases: [], virtualAddresses: [], options: {} };
  const both = service('both', { ports: [{ publishedPort: 8080 }] });
  const task = { ...both.spec.task, networks: [...both.spec.task.networks, inFull] };
  const onlyFull = { ...task, networks: [inFull] };
  const first = service('first');
  allocation.service({ ...first, spec: { ...first.spec, task: onlyFull } }, NOW_MS);
  for (let attempt = 0; attempt < 20; attempt++)
    assert.throws(
      () => allocation.service({ ...both, spec: { ...both.spec, task } }, NOW_MS),
      /network full has no free address/,
    );

  const taken = service('taken', { ports: [{ publishedPort: 8080 }] });
  assert.equal(allocation.service(taken, NOW_MS)?.virtualAddresses.length, 1, 'address and port are free');
  const half = service('half', { ports: [{ publishedPort: 9090 }, { publishedPort: 8080 }] });
  for (let attempt = 0; attempt < 20; attempt++)
    assert.throws(() => allocation.service(half, NOW_MS), /port 8080.tcp is published by another service/);
  const other = service('other', { ports: [{ publishedPort: 9090 }] });
  assert.equal(allocation.service(other, NOW_MS)?.virtualAddresses.length, 1, 'address and port are free');
});

test('a service that was changed while its address was written gives back what it did not get', () => {
  const tables = cluster();
  addNetwork(tables, 'net', { subnets: [{ ...emptySubnet, subnet: '10.5.0.0/30' }] });
  const allocation = new Allocation(tables);
  const web = service('web', { ports: [{ publishedPort: 8080 }] });
  const next = allocation.service(web, NOW_MS) as Service;
  allocation.takeBack(next, web, NOW_MS);
  const other = service('other', { ports: [{ publishedPort: 8080 }] });
  assert.equal(
    allocation.service(other, NOW_MS + RESERVED_MS)?.virtualAddresses[0]?.address,
    next.virtualAddresses[0]?.address,
  );
});

const step = fc.record({
  what: fc.constantFrom('create', 'end', 'service', 'drop', 'leader'),
  pick: fc.nat({ max: 7 }),
  afterMs: fc.integer({ min: 0, max: 3_000 }),
});

test('whatever comes and goes and whoever leads, no address has two owners', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const tables = cluster();
      addNetwork(tables, 'net', { subnets: [{ ...emptySubnet, subnet: '10.5.0.0/28' }] });
      let allocation = new Allocation(tables);
      let nowMs = NOW_MS;
      const put = <K extends Kind>(kind: K, object: Kinds[K]) => {
        const previous = tables.get(kind, object.id) as Kinds[K] | undefined;
        tables.put(kind, object);
        const action = previous === undefined ? ('created' as const) : ('updated' as const);
        allocation.note({ kind, action, object, ...(previous && { previous }) }, nowMs);
      };
      const drop = (kind: Kind, id: string) => {
        const object = tables.get(kind, id) as Kinds[Kind];
        tables.delete(kind, id);
        allocation.note({ kind, action: 'removed', object }, nowMs);
      };
      for (const { what, pick, afterMs } of steps) {
        nowMs += afterMs;
        const id = `t${pick}`;
        const name = `s${pick % 3}`;
        const task = tables.task.get(id);
        if (what === 'leader') allocation = new Allocation(tables);
        else if (what === 'end' && task)
          put('task', { ...task, status: { ...task.status, state: 'complete' } });
        else if (what === 'drop' && task) drop('task', id);
        else if (what === 'drop' && tables.service.get(name)) drop('service', name);
        else if (what === 'service') {
          const next = granted(() => allocation.service(service(name), nowMs));
          if (next !== undefined && tables.service.get(name) === undefined) put('service', next);
          else if (next !== undefined)
            for (const { networkId, address } of next.virtualAddresses)
              if (!tables.service.get(name)?.virtualAddresses.some((own) => own.address === address))
                allocation.release([{ networkId, addresses: [address] }], name, nowMs);
        } else if (what === 'create' && task === undefined) {
          const fresh = { ...aTask('s0'), id };
          const attachments = granted(() => allocation.task(fresh, service('s0').spec, nowMs));
          if (attachments !== undefined) put('task', { ...fresh, attachments });
        }
        requireDistinct(tables);
      }
    }),
  );
});

function granted<T>(decide: () => T): T | undefined {
  try {
    return decide();
  } catch (error) {
    assert.ok(error instanceof NotYet, String(error));
    return undefined;
  }
}

function requireDistinct(tables: Tables): void {
  const living = [...tables.task.values()].filter((task: Task) => task.status.state === 'running');
  const addresses = [
    ...living.flatMap(({ attachments }) => attachments.flatMap((attachment) => attachment.addresses)),
    ...[...tables.service.values()].flatMap(({ virtualAddresses }) =>
      virtualAddresses.map(({ address }) => address),
    ),
  ];
  assert.equal(new Set(addresses).size, addresses.length, addresses.join(' '));
}
