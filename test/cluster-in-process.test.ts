// The whole path from control service to worker and back, with a fake engine: what an operator asks for happens.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../core/generated/objects.ts';
import { aService, TestCluster } from './support/cluster-in-process.ts';
import { eventually } from './support/eventually.ts';

async function create(cluster: TestCluster, spec: ReturnType<typeof aService>): Promise<Service> {
  return (await cluster.control.createService({ spec })).service;
}

test('a created service runs as many tasks as it has replicas', async () => {
  await using cluster = await TestCluster.start();
  await create(cluster, aService('web', { replicas: 5 }));

  const running = await cluster.untilRunning('web', 5);

  assert.deepEqual(running.map((task) => task.slot).sort(), [1, 2, 3, 4, 5]);
  assert.equal(cluster.engine.running.size, 5);
});

test('scaling down removes the surplus tasks and their containers, scaling up fills the lowest slots', async () => {
  await using cluster = await TestCluster.start();
  const service = await create(cluster, aService('web', { replicas: 4 }));
  await cluster.untilRunning('web', 4);
  const scaled = { ...service.spec, mode: { replicated: { replicas: 2 } } };

  const { service: smaller } = await cluster.control.updateService({
    serviceId: service.id,
    version: service.specVersion,
    spec: scaled,
    rollback: false,
  });
  await eventually(() => cluster.engine.running.size === 2 && cluster.network.endpoints.size === 2);
  await eventually(async () => (await cluster.tasks('web')).length === 2);
  await cluster.control.updateService({
    serviceId: service.id,
    version: smaller.specVersion,
    spec: { ...scaled, mode: { replicated: { replicas: 3 } } },
    rollback: false,
  });

  const running = await cluster.untilRunning('web', 3);
  assert.deepEqual(running.map((task) => task.slot).sort(), [1, 2, 3]);
});

test('a removed service leaves no task, no container and no address', async () => {
  await using cluster = await TestCluster.start();
  const { id } = await create(cluster, aService('web', { replicas: 3 }));
  await cluster.untilRunning('web', 3);

  await cluster.control.removeService({ service: 'web' });

  await eventually(() => cluster.engine.running.size === 0 && cluster.network.endpoints.size === 0);
  const left: unknown[] = [];
  await eventually(async () => {
    left.length = 0;
    for await (const page of cluster.control.listTasks({ serviceIds: [id], nodeIds: [] }))
      left.push(...page.tasks, ...page.revisions);
    return left.length === 0;
  });
});

test('a task that ends is followed by another in the same slot, and its end stays on record', async () => {
  await using cluster = await TestCluster.start();
  await create(cluster, aService('web'));
  const [first] = await cluster.untilRunning('web', 1);

  cluster.engine.exit(first?.id ?? '', 9);

  await eventually(async () => (await cluster.running('web'))[0]?.id !== first?.id);
  const [next] = await cluster.untilRunning('web', 1);
  assert.equal(next?.slot, first?.slot);
  const ended = (await cluster.tasks('web')).find((task) => task.id === first?.id);
  assert.equal(ended?.status.state, 'failed');
  assert.equal(ended?.status.error, 'task: non-zero exit (9)');
  assert.equal(ended?.status.container?.exitCode, 9);
});

test('restart condition none leaves an ended task alone', async () => {
  await using cluster = await TestCluster.start();
  const spec = aService('once', {
    change: (s) => ({ ...s, task: { ...s.task, restart: { ...s.task.restart, condition: 'none' } } }),
  });
  await create(cluster, {
    ...spec,
    task: { ...spec.task, restart: { ...spec.task.restart, condition: 'none' } },
  });
  const [task] = await cluster.untilRunning('once', 1);

  cluster.engine.exit(task?.id ?? '', 0);

  await eventually(async () => (await cluster.tasks('once'))[0]?.desiredState === 'shutdown');
  assert.equal((await cluster.tasks('once')).length, 1);
  const why = await cluster.control.explain({ target: 'once' });
  assert.match(why.steps.map((step) => step.text).join('\n'), /is not restarted: condition none/);
});

test('an image that does not exist is said so on the task and by why', async () => {
  await using cluster = await TestCluster.start();
  await create(cluster, aService('bad', { container: { image: 'nosuch:1' } }));

  await eventually(async () => (await cluster.tasks('bad')).some((task) => task.status.state === 'rejected'));

  const why = await cluster.control.explain({ target: 'bad' });
  assert.equal(why.ok, false);
  assert.match(why.steps.map((step) => step.text).join('\n'), /No such image: nosuch:1/);
});

test('a rolling update replaces every task and says when it is complete', async () => {
  await using cluster = await TestCluster.start();
  const service = await create(cluster, aService('web', { replicas: 3 }));
  const old = await cluster.untilRunning('web', 3);
  const env = ['RELEASE=2'];
  const spec = {
    ...service.spec,
    task: { ...service.spec.task, container: { ...service.spec.task.container, env } },
  };

  await cluster.control.updateService({
    serviceId: service.id,
    version: service.specVersion,
    spec,
    rollback: false,
  });

  await eventually(async () => {
    const { updateStatus } = (await cluster.control.getService({ service: 'web' })).service;
    return updateStatus?.state === 'completed';
  });
  const running = await cluster.running('web');
  assert.equal(running.length, 3);
  assert.ok(running.every((task) => task.specVersion === 2 && !old.some(({ id }) => id === task.id)));
});

test('an update whose tasks fail is paused; rollback brings the old spec back', async () => {
  await using cluster = await TestCluster.start();
  const service = await create(cluster, aService('web', { replicas: 2 }));
  await cluster.untilRunning('web', 2);
  const spec = {
    ...service.spec,
    task: { ...service.spec.task, container: { ...service.spec.task.container, image: 'broken:1' } },
  };

  const updated = await cluster.control.updateService({
    serviceId: service.id,
    version: 1,
    spec,
    rollback: false,
  });
  await eventually(async () => {
    const { updateStatus } = (await cluster.control.getService({ service: 'web' })).service;
    return updateStatus?.state === 'paused';
  });
  assert.equal((await cluster.running('web')).length, 1, 'the other slot is not touched');
  await cluster.control.updateService({
    serviceId: service.id,
    version: updated.service.specVersion,
    rollback: true,
  });

  await eventually(async () => {
    const { updateStatus } = (await cluster.control.getService({ service: 'web' })).service;
    return updateStatus?.state === 'rollback-completed';
  });
  await cluster.untilRunning('web', 2);
});

test('failure action rollback goes back by itself', async () => {
  await using cluster = await TestCluster.start();
  const service = await create(cluster, aService('web', { replicas: 2 }));
  await cluster.untilRunning('web', 2);
  const spec = {
    ...service.spec,
    update: { ...service.spec.update, failureAction: 'rollback' as const },
    task: { ...service.spec.task, container: { ...service.spec.task.container, image: 'broken:1' } },
  };

  await cluster.control.updateService({ serviceId: service.id, version: 1, spec, rollback: false });

  await eventually(async () => {
    const { updateStatus } = (await cluster.control.getService({ service: 'web' })).service;
    return updateStatus?.state === 'rollback-completed';
  });
  const { service: back } = await cluster.control.getService({ service: 'web' });
  assert.equal(back.spec.task.container.image, 'busybox:latest');
  await cluster.untilRunning('web', 2);
});

test('a manager that restarts knows everything, replays its log and touches no running task', async () => {
  await using cluster = await TestCluster.start();
  await create(cluster, aService('web', { replicas: 20 }));
  const before = await cluster.untilRunning('web', 20);

  await cluster.stopManager();
  await cluster.startManager();

  const after = await cluster.untilRunning('web', 20);
  assert.deepEqual(new Set(after.map((task) => task.id)), new Set(before.map((task) => task.id)));
  await eventually(async () => (await cluster.control.listNodes({})).nodes[0]?.status.state === 'ready');
});

test('an agent that restarts adopts its tasks, and reports what ended meanwhile', async () => {
  await using cluster = await TestCluster.start();
  await create(cluster, aService('web', { replicas: 3 }));
  const before = await cluster.untilRunning('web', 3);

  await cluster.stopAgent();
  cluster.engine.exit(before[0]?.id ?? '', 5);
  await cluster.startAgent();

  await eventually(async () => {
    const ended = (await cluster.tasks('web')).find((task) => task.id === before[0]?.id);
    return ended?.status.container?.exitCode === 5;
  });
  const after = await cluster.untilRunning('web', 3);
  const kept = after.filter((task) => before.some(({ id }) => id === task.id));
  assert.equal(kept.length, 2);
});

test('logs of a service arrive with their task', async () => {
  await using cluster = await TestCluster.start();
  const { id } = await create(cluster, aService('web', { replicas: 2 }));
  await cluster.untilRunning('web', 2);

  const lines: string[] = [];
  for await (const part of cluster.control.serviceLogs({
    serviceIds: [id],
    taskIds: [],
    options: { follow: false, tail: -1, sinceMs: 0, untilMs: 0 },
    resumed: false,
    after: {},
  }))
    lines.push(...part.lines.map(({ data }) => Buffer.from(data).toString()));

  assert.deepEqual(lines, ['hello\n', 'hello\n']);
});

test('a second service of the same name is refused', async () => {
  await using cluster = await TestCluster.start();
  await create(cluster, aService('web'));

  await assert.rejects(create(cluster, aService('web')), { code: 'already-exists' });
});
