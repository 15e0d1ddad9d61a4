// kill -9 of everything that can be killed: no container, exit code or log line is lost, and the node comes back.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { defined } from '../../core/assert.ts';
import type { Task } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { managerPidOf } from '../support/process-status.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, linesOf, tasksOf, untilRunning } from '../support/services.ts';

const image = 'localhost/bb:1';
/** A numbered line every 50 ms: a lost or doubled one shows. */
const COUNTING = 'trap "exit 0" TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 50000; done';
/** Ends with code 3 on USR1. */
const ON_SIGNAL =
  'trap "echo bye; exit 3" USR1; trap "exit 0" TERM; echo up; while :; do sleep 1000 & wait $!; done';

describe('after kill -9', { skip: whyNoRealNode() ?? false }, () => {
  let node: RealNode;
  let counting: Task;
  let serviceId: string;

  before(async () => {
    node = await RealNode.start();
    await node.init();
    await node.importImage((await buildDemoImage({ name: image })).archive);
    serviceId = (await createService(node, 'counting', { image, script: COUNTING })).id;
    [counting] = (await untilRunning(node, serviceId, 1)) as [Task];
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
  });

  const untilSessionIsBack = () =>
    eventually(async () => (await node.control.listNodes({})).nodes[0]?.status.state === 'ready', 30_000);

  const assertStillCounting = async () => {
    const [task] = await untilRunning(node, serviceId, 1);
    assert.equal(task?.id, counting.id, 'it is the same task');
    assert.equal(task?.status.container?.pid, counting.status.container?.pid, 'and the same process');
    const before = (await linesOf(node, serviceId)).get(counting.id)?.length ?? 0;
    await eventually(async () => ((await linesOf(node, serviceId)).get(counting.id)?.length ?? 0) > before);
    const lines = (await linesOf(node, serviceId)).get(counting.id) ?? [];
    assert.deepEqual(
      lines,
      lines.map((_, index) => String(index + 1)),
      'no line is lost or doubled',
    );
  };

  test('of the daemon, tasks run on and are adopted with every log line', async () => {
    await node.killDaemon();
    await node.startDaemon();
    await untilSessionIsBack();
    await assertStillCounting();
  });

  test('of the daemon, the exit code of a task that ended meanwhile is told', async () => {
    const { id } = await createService(node, 'signal', { image, script: ON_SIGNAL });
    const [task] = await untilRunning(node, id, 1);
    await eventually(async () => (await linesOf(node, id)).get(task?.id ?? '')?.includes('up') === true);

    await node.killDaemon();
    process.kill(task?.status.container?.pid ?? 0, 'SIGUSR1');
    await eventually(() => !isAlive(task?.status.container?.pid ?? 0));
    await node.startDaemon();

    await eventually(async () => {
      const ended = (await tasksOf(node, id)).find((other) => other.id === task?.id);
      assert.equal(ended?.status.container?.exitCode, 3);
      assert.equal(ended?.status.state, 'failed');
      return true;
    }, 30_000);
    assert.deepEqual((await linesOf(node, id)).get(task?.id ?? ''), ['up', 'bye']);
    await untilRunning(node, id, 1);
    await node.control.removeService({ service: 'signal' });
  });

  test('of containerd, it is started again and tasks neither stop nor lose lines', async () => {
    const pid = await node.containerdPid();
    process.kill(pid, 'SIGKILL');

    await eventually(async () => (await node.containerdPid()) !== pid, 20_000);
    await assertStillCounting();
    const { id } = await createService(node, 'later', { image });
    await untilRunning(node, id, 1);
    await node.control.removeService({ service: 'later' });
  });

  test('of the manager, it is started again with everything it knew', async () => {
    const pid = managerPid(node);
    process.kill(pid, 'SIGKILL');

    await eventually(async () => {
      const { services } = await node.control.listServices({}, { timeoutMs: 2_000 });
      return services.some(({ service }) => service.id === serviceId);
    }, 30_000);
    await untilSessionIsBack();
    await assertStillCounting();
    assert.notEqual(managerPid(node), pid);
  });

  test('of daemon and containerd together, in the middle of a deployment, it converges', async () => {
    const { id } = await createService(node, 'burst', { image, replicas: 12 });
    await eventually(async () => (await tasksOf(node, id)).some((task) => task.status.state !== 'new'));

    process.kill(await node.containerdPid(), 'SIGKILL');
    await node.killDaemon();
    await node.startDaemon();

    await untilRunning(node, id, 12);
    await node.control.removeService({ service: 'burst' });
    await eventually(async () => (await tasksOf(node, id)).length === 0, 30_000);
    await eventually(async () => {
      const { containersRunning, containersStopped } = await node.node.info({});
      return containersRunning + containersStopped === 1;
    }, 30_000);
    await assertStillCounting();
  });

  test('leaving the cluster removes every container, and the node can begin anew', async () => {
    await node.node.leave({ force: true });

    const info = await node.node.info({});
    assert.equal(info.state, 'inactive');
    assert.equal(info.containersRunning + info.containersStopped, 0);
    await node.init();
    assert.deepEqual((await node.control.listServices({})).services, []);
  });
});

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    // No such process.
    return false;
  }
}

function managerPid(node: RealNode): number {
  return defined(managerPidOf(node.daemonPid), 'the daemon has a manager process');
}
