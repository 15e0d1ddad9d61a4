// Classes of bugs that have hurt operators of swarms, each as a story in simulated time that names where it was reported.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../core/defaults.ts';
import { emptyNetworkSpec, emptySubnet, type ServiceSpec, type Task } from '../core/generated/objects.ts';
import { isTerminal, isWanted } from '../core/task-state.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { OrchestrationWorld } from './sim/orchestration-world.ts';

setLogLevel('silent');

const CALL = { timeoutMs: 20_000 };
const REST_MS = 120_000;

/** Three managers and four machines on which nothing fails by itself. */
async function aCluster(): Promise<OrchestrationWorld> {
  const world = new OrchestrationWorld(1, { agents: 4, isCalm: true, cpus: 4 });
  await world.begin();
  return world;
}

function aSpec(name: string, replicas: number, networks: readonly string[] = []): ServiceSpec {
  const spec = newServiceSpec(name, { image: 'busybox', env: ['LIFE=steady'] });
  const attachments = networks.map((networkId) => ({
    networkId,
    aliases: [],
    virtualAddresses: [],
    options: {},
  }));
  return { ...spec, mode: { replicated: { replicas } }, task: { ...spec.task, networks: attachments } };
}

async function create(world: OrchestrationWorld, spec: ServiceSpec): Promise<void> {
  await world.carryOut((control) => control.createService({ spec }, CALL));
}

async function change(
  world: OrchestrationWorld,
  name: string,
  edit: (spec: ServiceSpec) => ServiceSpec,
): Promise<void> {
  await world.carryOut(async (control) => {
    const { service } = await control.getService({ service: name }, CALL);
    const { id: serviceId, specVersion: version, spec } = service;
    await control.updateService({ serviceId, version, spec: edit(spec), rollback: false }, CALL);
  });
}

function rest(world: OrchestrationWorld): Promise<void> {
  return world.until('rest', REST_MS, () => world.unrest());
}

function liveTasks(world: OrchestrationWorld): Task[] {
  const tasks = [...(world.leader?.store.view.task.values() ?? [])];
  return tasks.filter((task) => isWanted(task) && !isTerminal(task.status.state));
}

test('no two services or tasks share an address after leaders have changed (B3: moby#33795, moby#41576)', async () => {
  const world = await aCluster();
  await world.carryOut((control) =>
    control.createNetwork({ spec: { ...emptyNetworkSpec, name: 'wide' } }, CALL),
  );

  for (let round = 0; round < 4; round++) {
    await create(world, aSpec(`s${round}`, 5, ['wide']));
    world.killLeader();
    await world.advance(5_000 + round * 700);
  }
  await rest(world);

  const view = world.leader?.store.view;
  const addresses = [
    ...liveTasks(world).flatMap(({ attachments }) => attachments.flatMap((one) => one.addresses)),
    ...[...(view?.service.values() ?? [])].flatMap((one) =>
      one.virtualAddresses.map(({ address }) => address),
    ),
  ];
  assert.equal(addresses.length, 24);
  assert.equal(new Set(addresses).size, 24);
});

test('a network without addresses says so, and its tasks go on when others give theirs back (B4: moby#43052, for-aws#104)', async () => {
  const world = await aCluster();
  const subnets = [{ ...emptySubnet, subnet: '10.99.0.0/29' }];
  await world.carryOut((control) =>
    control.createNetwork({ spec: { ...emptyNetworkSpec, name: 'narrow', subnets } }, CALL),
  );
  await create(world, aSpec('first', 4, ['narrow']));
  await rest(world);

  await create(world, aSpec('second', 2, ['narrow']));
  await rest(world);
  const waiting = liveTasks(world).filter(({ status }) => status.state === 'new');
  assert.equal(waiting.length, 2);
  for (const { status } of waiting) assert.match(status.error, /network narrow has no free address/);

  await change(world, 'first', (spec) => ({ ...spec, mode: { replicated: { replicas: 1 } } }));
  await world.until('addresses', REST_MS, () => {
    const missing = liveTasks(world).find(({ status }) => status.state !== 'running');
    return missing && `${missing.id} is ${missing.status.state}: ${missing.status.error}`;
  });
});

test('what was new or waited when its leader died is placed by the next one (B5: swarmkit#1938, swarmkit#2614, moby#37493)', async () => {
  const world = await aCluster();

  for (let round = 0; round < 5; round++) {
    void world.operate((control) => control.createService({ spec: aSpec(`s${round}`, 3) }, CALL));
    await world.advance(1 + round * 2);
    world.killLeader();
    await world.advance(6_000);
  }
  await rest(world);

  const services = world.leader?.store.view.service.size ?? 0;
  assert.ok(services > 0);
  assert.equal(liveTasks(world).length, 3 * services);
});

test('a slow second of the leader and a change of leaders restart no task (B6: moby#38203, moby#43508)', async () => {
  const world = await aCluster();
  await create(world, aSpec('web', 12));
  await rest(world);
  const before = liveTasks(world).map(({ id }) => id);

  for (const pauseMs of [1_000, 3_000, 5_500]) {
    world.pauseLeader(pauseMs);
    await world.advance(15_000);
  }
  world.killLeader();
  await world.advance(60_000);

  assert.deepEqual(
    liveTasks(world)
      .map(({ id }) => id)
      .sort(),
    before.sort(),
  );
});

test('an update goes on under the next leader, and one that cannot go on says why (B13: moby#37493)', async () => {
  const world = await aCluster();
  await create(world, aSpec('web', 6));
  await rest(world);

  await change(world, 'web', (spec) => ({ ...spec, task: { ...spec.task, forceUpdate: 1 } }));
  for (let round = 0; round < 3; round++) {
    world.killLeader();
    await world.advance(3_000);
  }
  await rest(world);
  const statusOf = () => [...(world.leader?.store.view.service.values() ?? [])][0]?.updateStatus;
  assert.equal(statusOf()?.state, 'completed');

  await change(world, 'web', (spec) => ({
    ...spec,
    update: { ...spec.update, deadlineMs: 30_000 },
    task: {
      ...spec.task,
      forceUpdate: 2,
      placement: { ...spec.task.placement, constraints: ['node.labels.zone==nowhere'] },
    },
  }));
  await world.advance(20_000);
  world.killLeader();
  await rest(world);
  assert.match(
    statusOf()?.message ?? '',
    /no progress since .*scheduling constraints not satisfied on 4 nodes/,
  );
});

test('nothing is on a drained node, and each other node has one task of a global service, whoever leads (B14: moby#42295, moby#39130, moby#36958)', async () => {
  const world = await aCluster();
  const spec = aSpec('everywhere', 1);
  await create(world, { ...spec, mode: { global: {} } });
  await rest(world);
  const [drained] = [...(world.leader?.store.view.node.values() ?? [])];
  assert.ok(drained);

  void world.operate((control) => control.createService({ spec: aSpec('web', 8) }, CALL));
  await world.carryOut((control) =>
    control.updateNode(
      {
        nodeId: drained.id,
        version: drained.meta.version,
        spec: { ...drained.spec, availability: 'drain' },
        address: '',
      },
      CALL,
    ),
  );
  world.killLeader();
  await world.advance(10_000);
  await rest(world);

  const tasks = liveTasks(world);
  assert.equal(tasks.filter(({ nodeId }) => nodeId === drained.id).length, 0);
  assert.equal(tasks.filter(({ slot }) => slot === 0).length, 3);
});

test('jobs that have completed leave room for others (B16: swarmkit#3237)', async () => {
  const world = await aCluster();
  const reserving = (spec: ServiceSpec): ServiceSpec => {
    const reservations = { cpuNanos: 2e9, memoryBytes: 0 };
    return { ...spec, task: { ...spec.task, resources: { ...spec.task.resources, reservations } } };
  };
  const job = reserving(aSpec('job', 1));
  const container = { ...job.task.container, env: ['LIFE=job'] };
  const restart = { ...job.task.restart, condition: 'on-failure' as const };
  await create(world, {
    ...job,
    mode: { replicatedJob: { totalCompletions: 8, maxConcurrent: 0 } },
    task: { ...job.task, container, restart },
  });
  await rest(world);
  world.killLeader();
  await world.advance(5_000);

  await create(world, reserving(aSpec('web', 8)));
  await rest(world);

  const running = liveTasks(world).filter(({ status }) => status.state === 'running');
  assert.equal(running.length, 8);
});
