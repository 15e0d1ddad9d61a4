import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import {
  emptyMeta,
  emptyNetwork,
  emptyNetworkSpec,
  emptySubnet,
  type Service,
  type Task,
} from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aServiceObject, aTask } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from '../store/store.ts';
import { revisionId } from '../store/tables.ts';
import { RESERVED_MS } from './address-space.ts';
import { runAllocatorLoop } from './allocator-loop.ts';

setLogLevel('error');

const network = {
  ...emptyNetwork,
  id: 'net',
  spec: { ...emptyNetworkSpec, name: 'net', subnets: [{ ...emptySubnet, subnet: '10.5.0.0/29' }] },
};

function attachedService(id: string): Service {
  return aServiceObject(id, 1, (spec) => ({
    ...spec,
    task: { ...spec.task, networks: [{ networkId: 'net', aliases: [], virtualAddresses: [], options: {} }] },
  }));
}

async function openStore(clock: FakeClock): Promise<Store> {
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  return store;
}

async function addService(store: Store, service: Service): Promise<void> {
  await store.update((tx) => {
    tx.create('service', service);
    const { id, specVersion, spec } = service;
    tx.create('revision', {
      id: revisionId(id, specVersion),
      meta: emptyMeta,
      serviceId: id,
      specVersion,
      spec,
      registryAuth: false,
    });
  });
}

async function addTasks(store: Store, serviceId: string, count: number): Promise<Task[]> {
  const tasks = Array.from({ length: count }, (_, index) =>
    aTask(serviceId, { slot: index + 1, state: 'new', nodeId: '' }),
  );
  await store.update((tx) => {
    for (const task of tasks) tx.create('task', task);
  });
  return tasks;
}

test('tasks wait for their network, get addresses, and those that get none say why until one is given back', async (t) => {
  const clock = new FakeClock();
  const store = await openStore(clock);
  const stop = new AbortController();
  t.after(() => stop.abort());
  void runAllocatorLoop({ store, clock }, stop.signal);
  const stateOf = ({ id }: Task) => store.view.task.get(id)?.status.state;

  await addService(store, attachedService('web'));
  const tasks = await addTasks(store, 'web', 5);
  await eventually(() => store.view.task.get(tasks[0]?.id ?? '')?.status.error === 'network net is gone');

  await store.update((tx) => tx.create('network', network));
  // Five addresses, of which the service has one.
  await eventually(() => tasks.filter((task) => stateOf(task) === 'pending').length === 4);
  const waiting = tasks.find((task) => stateOf(task) === 'new') as Task;
  await eventually(() =>
    /no free address: 5 of 5 in use/.test(store.view.task.get(waiting.id)?.status.error ?? ''),
  );

  const [first] = store.view.task.values();
  await store.update((tx) => {
    const task = tx.view.task.get((first as Task).id) as Task;
    tx.update('task', { ...task, status: { ...task.status, state: 'shutdown' } });
  });
  await eventually(() => /1 were just given back/.test(store.view.task.get(waiting.id)?.status.error ?? ''));
  await eventually(() => {
    clock.advance(RESERVED_MS);
    return stateOf(waiting) === 'pending';
  });
  const stored = store.view.task.get(waiting.id);
  assert.equal(stored?.status.error, '');
  assert.deepEqual(stored?.attachments, (first as Task).attachments);
});

test('a new leader gives out nothing that the one before has given', async () => {
  const clock = new FakeClock();
  const store = await openStore(clock);
  await store.update((tx) => tx.create('network', { ...network, spec: { ...network.spec, subnets: [] } }));
  await addService(store, attachedService('web'));
  const addresses = () =>
    [...store.view.task.values()].flatMap(({ attachments }) => attachments.flatMap((one) => one.addresses));
  for (const round of [1, 2, 3]) {
    const stop = new AbortController();
    const running = runAllocatorLoop({ store, clock }, stop.signal);
    await addTasks(store, 'web', 10);
    await eventually(() => addresses().length === 10 * round);
    stop.abort();
    await running;
  }
  const [service] = store.view.service.values();
  const all = [...addresses(), ...(service?.virtualAddresses.map(({ address }) => address) ?? [])];
  assert.equal(new Set(all).size, 31);
});
