import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptyPortConfig, type Service, type Task } from '../../core/generated/objects.ts';
import type {
  NetworkEndpoint,
  NetworkService,
  NetworkUpdate,
  NodeLocation,
} from '../../proto/generated/dispatcher.ts';
import {
  aNetwork,
  aNode,
  aServiceObject,
  aTask,
  putInto,
  removeFrom,
  tablesOf,
} from '../../test/support/builders.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import type { Kind, Kinds, Tables } from '../store/tables.ts';
import { AssignmentTracker } from './assignments.ts';
import { NetworkDirectory } from './network-directory.ts';
import type { NetworkNews } from './session-networks.ts';

const NET = [{ networkId: 'net', addresses: ['10.0.1.5'] }];

function attachedService(id: string, networkIds: readonly string[] = ['net']): Service {
  return aServiceObject(id, 1, (spec) => ({
    ...spec,
    task: {
      ...spec.task,
      networks: networkIds.map((networkId) => ({
        networkId,
        aliases: [],
        virtualAddresses: [],
        options: {},
      })),
    },
  }));
}

function clusterWith(services: readonly Service[], tasks: readonly Task[]): Tables {
  const tables = tablesOf(services, tasks, [aNode('n1'), aNode('n2')]);
  tables.put('network', aNetwork('net'));
  return tables;
}

/** Changes an object as an applied entry would. */
function put<K extends Kind>(
  tables: Tables,
  directory: NetworkDirectory,
  kind: K,
  object: Kinds[K],
): StoreEvent<K> {
  const event = putInto(tables, kind, object);
  directory.note(event);
  return event;
}

function remove<K extends Kind>(
  tables: Tables,
  directory: NetworkDirectory,
  kind: K,
  id: string,
): StoreEvent<K> {
  const event = removeFrom(tables, kind, id);
  directory.note(event);
  return event;
}

test('an agent hears of a network together with the first task that is part of it, and of its end after the last', () => {
  const tables = clusterWith([attachedService('s')], []);
  const directory = new NetworkDirectory(tables);
  const tracker = new AssignmentTracker('n1');
  assert.deepEqual(tracker.complete(tables, directory).networks, []);

  const task = aTask('s', { attachments: NET, state: 'assigned' });
  tracker.note(put(tables, directory, 'task', task));
  directory.takeChanges();
  const first = tracker.incremental(tables, directory);
  assert.deepEqual(
    first?.tasks.map(({ id }) => id),
    [task.id],
  );
  assert.equal(first?.networks[0]?.network?.id, 'net');
  assert.equal(first?.networks[0]?.complete, true);
  assert.deepEqual(
    first?.nodes.map(({ nodeId }) => nodeId),
    ['n1', 'n2'],
  );

  const ended = { ...task, status: { ...task.status, state: 'shutdown' as const } };
  tracker.note(put(tables, directory, 'task', ended));
  assert.deepEqual(tracker.incremental(tables, directory)?.removedNetworkIds, ['net']);
});

test('a task serves from the moment it runs until it is to stop, and is an endpoint until it has ended', () => {
  const task = aTask('s', { attachments: NET, state: 'starting' });
  const tables = clusterWith([attachedService('s')], [task]);
  const directory = new NetworkDirectory(tables);
  const servingAfter = (state: Task['status']['state'], desiredState: Task['desiredState'], error = '') => {
    put(tables, directory, 'task', { ...task, status: { ...task.status, state, error }, desiredState });
    const [update] = directory.takeChanges().networks;
    return update?.endpoints[0]?.serving ?? update?.removedTaskIds;
  };

  assert.equal(servingAfter('running', 'running'), true);
  assert.equal(servingAfter('running', 'running', 'unhealthy container'), false);
  assert.equal(servingAfter('running', 'running'), true);
  assert.equal(servingAfter('running', 'shutdown'), false);
  assert.deepEqual(servingAfter('shutdown', 'shutdown'), [task.id]);
});

test('the endpoints of a lost node leave, and come back with it', () => {
  const task = aTask('s', { attachments: NET });
  const tables = clusterWith([attachedService('s')], [task]);
  const directory = new NetworkDirectory(tables);

  put(tables, directory, 'node', aNode('n1', { state: 'down' }));
  assert.deepEqual(directory.takeChanges().networks[0]?.removedTaskIds, [task.id]);
  put(tables, directory, 'node', aNode('n1', { state: 'ready' }));
  assert.deepEqual(directory.takeChanges().networks[0]?.endpoints[0]?.addresses, ['10.0.1.5']);
});

test('every node takes part in the ingress network while a service publishes a port in it', () => {
  const service = attachedService('s', []);
  const tables = clusterWith([service], []);
  tables.put('network', aNetwork('ingress', { ingress: true }));
  const directory = new NetworkDirectory(tables);
  const tracker = new AssignmentTracker('n2');
  tracker.complete(tables, directory);

  const ports = [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080 }];
  put(tables, directory, 'service', { ...service, ports });
  directory.takeChanges();
  const [update] = tracker.incremental(tables, directory)?.networks ?? [];
  assert.equal(update?.networkId, 'ingress');
  assert.deepEqual(update?.services[0]?.ports, ports);

  remove(tables, directory, 'service', 's');
  directory.takeChanges();
  assert.deepEqual(tracker.incremental(tables, directory)?.removedNetworkIds, ['ingress']);
});

test('a label of the node is the weight of its tasks, for services that ask for it', () => {
  const service = attachedService('s');
  const task = aTask('s', { attachments: NET });
  const tables = clusterWith([service], [task]);
  tables.put('node', aNode('n1', { labels: { share: '5' } }));
  const directory = new NetworkDirectory(tables);
  assert.equal(directory.complete('net')?.endpoints[0]?.weight, 1);

  const endpoint = { ...service.spec.endpoint, weightLabel: 'share' };
  put(tables, directory, 'service', { ...service, spec: { ...service.spec, endpoint } });
  assert.equal(directory.takeChanges().networks[0]?.endpoints[0]?.weight, 5);
});

// --- what an agent puts together equals what the managers have ---

class Follower {
  readonly networks = new Map<
    string,
    { endpoints: Map<string, NetworkEndpoint>; services: Map<string, NetworkService> }
  >();
  readonly nodes = new Map<string, NodeLocation>();

  hear({ networks, removedNetworkIds, nodes, removedNodeIds }: NetworkNews): void {
    for (const update of networks) this.#update(update);
    for (const id of removedNetworkIds) this.networks.delete(id);
    for (const node of nodes) this.nodes.set(node.nodeId, node);
    for (const id of removedNodeIds) this.nodes.delete(id);
  }

  #update(update: NetworkUpdate): void {
    if (update.complete) this.networks.set(update.networkId, { endpoints: new Map(), services: new Map() });
    const known = this.networks.get(update.networkId);
    assert.ok(known, 'changes follow a complete message');
    for (const endpoint of update.endpoints) known.endpoints.set(endpoint.taskId, endpoint);
    for (const id of update.removedTaskIds) known.endpoints.delete(id);
    for (const service of update.services) known.services.set(service.serviceId, service);
    for (const id of update.removedServiceIds) known.services.delete(id);
  }
}

const command = fc.record({
  what: fc.constantFrom('task', 'end', 'forget', 'service', 'drop-service', 'node', 'flush', 'session'),
  slot: fc.integer({ min: 0, max: 4 }),
  node: fc.constantFrom('n1', 'n2', 'n3'),
  flag: fc.boolean(),
});

test('snapshot and differences together are always what the managers know', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      const tables = clusterWith([attachedService('s0'), attachedService('s1', ['net', 'other'])], []);
      tables.put('network', aNetwork('other'));
      const directory = new NetworkDirectory(tables);
      let tracker = new AssignmentTracker('n1');
      let follower = new Follower();
      follower.hear(tracker.complete(tables, directory));
      const flush = () => {
        const changes = directory.takeChanges();
        follower.hear(
          tracker.networkChanges(changes) ?? {
            networks: [],
            removedNetworkIds: [],
            nodes: [],
            removedNodeIds: [],
          },
        );
        const rest = tracker.incremental(tables, directory);
        if (rest !== undefined) follower.hear(rest);
      };
      const putTask = (task: Task) => tracker.note(put(tables, directory, 'task', task));
      for (const { what, slot, node, flag } of commands) {
        const id = `t${slot}`;
        const known = tables.task.get(id);
        const serviceId = `s${slot % 2}`;
        if (what === 'task') {
          const attachments = (flag ? ['net'] : ['net', 'other']).map((networkId) => ({
            networkId,
            addresses: [`10.0.1.${slot + 2}`],
          }));
          const task = known ?? { ...aTask(serviceId, { attachments, nodeId: node }), id };
          const desiredState = flag ? ('running' as const) : ('shutdown' as const);
          putTask({ ...task, desiredState });
        } else if (what === 'end' && known !== undefined)
          putTask({ ...known, status: { ...known.status, state: 'failed' } });
        else if (what === 'forget' && known !== undefined)
          tracker.note(remove(tables, directory, 'task', id));
        else if (what === 'service') {
          const service = attachedService(serviceId, flag ? ['net'] : ['net', 'other']);
          put(tables, directory, 'service', service);
        } else if (what === 'drop-service' && tables.service.get(serviceId) !== undefined)
          remove(tables, directory, 'service', serviceId);
        else if (what === 'node')
          put(tables, directory, 'node', aNode(node, { state: flag ? 'ready' : 'down' }));
        else if (what === 'flush') flush();
        else if (what === 'session') {
          tracker = new AssignmentTracker('n1');
          follower = new Follower();
          follower.hear(tracker.complete(tables, directory));
        }
      }
      flush();
      const fresh = new NetworkDirectory(tables);
      const wanted = new AssignmentTracker('n1').complete(tables, fresh);
      const expected = new Follower();
      expected.hear(wanted);
      assert.deepEqual(sorted(follower), sorted(expected));
    }),
  );
});

function sorted(follower: Follower): unknown {
  const byKey = (entries: Iterable<[string, unknown]>) => [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    byKey(follower.networks).map(([id, network]) => {
      const { endpoints, services } = network as {
        endpoints: Map<string, unknown>;
        services: Map<string, unknown>;
      };
      return [id, byKey(endpoints), byKey(services)];
    }),
    follower.networks.size > 0 ? byKey(follower.nodes) : [],
  ];
}
