import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import {
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
import { createRevision } from '../store/service-revision.ts';
import { Store } from '../store/store.ts';
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
    createRevision(tx, service, undefined);
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

test('who has waited for an address gets it before those that come later', async (t) => {
  const clock = new FakeClock();
  const store = await openStore(clock);
  const stop = new AbortController();
  t.after(() => stop.abort());
  void runAllocatorLoop({ store, clock }, stop.signal);
  await store.update((tx) => tx.create('network', network));
  await addService(store, attachedService('web'));
  const tasks = await addTasks(store, 'web', 5);
  const stored = ({ id }: Task) => store.view.task.get(id) as Task;
  await eventually(() => tasks.some((task) => /no free address/.test(stored(task).status.error)));
  const waiting = tasks.find((task) => stored(task).status.state === 'new') as Task;
  const holder = tasks.find((task) => task !== waiting) as Task;

  // As a task that fails does: it ends, and its successor is there when its address has rested.
  await store.update((tx) => tx.delete('task', holder.id));
  await eventually(() => /1 were just given back/.test(stored(waiting).status.error));
  const adding = addTasks(store, 'web', 1);
  clock.advance(RESERVED_MS);
  const [late] = (await adding) as [Task];
  await eventually(() => [waiting, late].some((task) => stored(task).status.state === 'pending'));

  assert.equal(stored(waiting).status.state, 'pending');
  assert.equal(stored(late).status.state, 'new');
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

test('an allocator whose task waits in a full network sleeps, whatever rests in others (B4: moby#43052)', async () => {
  const clock = new FakeClock();
  const store = await openStore(clock);
  const other = { ...network, id: 'other', spec: { ...network.spec, name: 'other', subnets: [] } };
  await store.update((tx) => {
    tx.create('network', network);
    tx.create('network', other);
  });
  const stop = new AbortController();
  const running = runAllocatorLoop({ store, clock }, stop.signal);
  await addService(store, attachedService('web'));
  const onOther = attachedService('on-other');
  const [attachment] = onOther.spec.task.networks;
  const networks = [{ ...attachment, networkId: 'other' }] as typeof onOther.spec.task.networks;
  const task = { ...onOther.spec.task, networks };
  await addService(store, { ...onOther, spec: { ...onOther.spec, task } });
  const [resting] = (await addTasks(store, 'on-other', 1)) as [Task];
  await eventually(() => store.view.task.get(resting.id)?.status.state === 'pending');

  await store.update((tx) => tx.delete('task', resting.id));
  clock.advance(RESERVED_MS);
  const tasks = await addTasks(store, 'web', 5);
  await eventually(() =>
    tasks.some(({ id }) => /no free address/.test(store.view.task.get(id)?.status.error ?? '')),
  );
  clock.advance(RESERVED_MS);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(clock.nextAtMs, undefined, 'it is woken by nothing but a change');
  stop.abort();
  await running;
});

test('what was given up before a node had it holds no address, and gets none (B4: moby#31377, B5: moby#34245)', async () => {
  const clock = new FakeClock();
  const store = await openStore(clock);
  await store.update((tx) => tx.create('network', network));
  await addService(store, attachedService('web'));
  const stop = new AbortController();
  const running = runAllocatorLoop({ store, clock }, stop.signal);
  const first = await addTasks(store, 'web', 6);
  const states = (tasks: readonly Task[]) => tasks.map(({ id }) => store.view.task.get(id)?.status.state);
  await eventually(() => states(first).filter((state) => state === 'pending').length === 4);

  await store.update((tx) => {
    for (const { id } of first) {
      const task = tx.view.task.get(id) as Task;
      tx.update('task', { ...task, desiredState: 'shutdown' });
    }
  });
  const second = await addTasks(store, 'web', 4);
  await eventually(() => {
    clock.advance(RESERVED_MS);
    return states(second).every((state) => state === 'pending');
  });
  assert.equal(states(first).filter((state) => state === 'new').length, 2);
  stop.abort();
  await running;
});
