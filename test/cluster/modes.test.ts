// Services on every node, jobs, and changes of services that run: real daemons on three hosts, asked by the command line.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Task } from '../../core/generated/objects.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { IDLE, tasksOf } from '../support/services.ts';

const IMAGE = 'localhost/bb:1';
const MIB = 2 ** 20;

describe('service modes', { skip: whyNoRealNode() ?? false, timeout: 120_000 }, () => {
  let cluster: RealCluster;

  before(async () => {
    cluster = await RealCluster.start('mdmodes', 3);
    await cluster.init();
    await cluster.join(1, 'worker');
    const { archive } = await buildDemoImage({ name: IMAGE });
    for (const node of cluster.nodes) await node.importImage(archive);
    await cluster.until(1, ({ status }) => status.state === 'ready');
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const cli = async (...args: readonly string[]) => (await cluster.node(0).succeed(...args)).stdout;
  const create = async (flags: readonly string[], script = IDLE) =>
    (await cli('service', 'create', '--no-resolve-image', ...flags, IMAGE, 'sh', '-c', script)).split(
      '\n',
    )[0] ?? '';
  const untilHolds = (check: () => Promise<void>, limitMs = 30_000) =>
    eventually(async () => {
      await check();
      return true;
    }, limitMs);
  const nodeId = async (position: number) => (await cluster.find(position)).id;
  const running = async (serviceId: string): Promise<Task[]> =>
    (await tasksOf(cluster.node(0), serviceId)).filter(
      (task) => isWanted(task) && task.status.state === 'running',
    );
  /** Running tasks by host, which are exactly these. */
  const untilOn = async (serviceId: string, hosts: readonly number[]): Promise<Map<number, Task>> => {
    const ids = await Promise.all(hosts.map(nodeId));
    return eventually(async () => {
      const all = await tasksOf(cluster.node(0), serviceId);
      const tasks = all.filter(({ status }) => status.state === 'running');
      assert.deepEqual(tasks.map((task) => task.nodeId).sort(), [...ids].sort());
      assert.ok(tasks.every(isWanted));
      return new Map(
        hosts.map((host, index) => [host, tasks.find((task) => task.nodeId === ids[index]) as Task]),
      );
    }, 30_000);
  };
  const column = async (name: string, field: string) =>
    (await cli('service', 'ls', '--filter', `name=${name}`, '--format', `{{.${field}}}`)).trim();

  test('a global service is on every node, also on one that joins later, and not on one that is drained', async () => {
    const id = await create(['--name', 'everywhere', '--mode', 'global', '--stop-grace-period', '1s']);
    await untilOn(id, [0, 1]);
    assert.equal(await column('everywhere', 'Mode'), 'global');

    await cluster.join(2, 'worker');
    const first = await untilOn(id, [0, 1, 2]);
    assert.equal(await column('everywhere', 'Replicas'), '3/3');
    assert.match(await cli('service', 'ps', 'everywhere'), new RegExp(`everywhere\\.${await nodeId(2)}`));

    await cli('node', 'update', '--availability', 'drain', await nodeId(1));
    await untilOn(id, [0, 2]);
    assert.equal(await column('everywhere', 'Replicas'), '2/2');
    await cli('node', 'update', '--availability', 'pause', await nodeId(2));
    await cli('service', 'update', '--quiet', '--update-monitor', '0s', '--force', 'everywhere');
    const updated = await untilOn(id, [0, 2]);
    assert.equal(updated.get(2)?.id, first.get(2)?.id, 'a paused node keeps what it has');
    assert.notEqual(updated.get(0)?.id, first.get(0)?.id);

    for (const host of [1, 2]) await cli('node', 'update', '--availability', 'active', await nodeId(host));
    await untilHolds(async () => {
      const now = await untilOn(id, [0, 1, 2]);
      assert.equal(new Set([...now.values()].map(({ specVersion }) => specVersion)).size, 1);
    }, 30_000);
    const scaled = await cluster.node(0).cli('service', 'scale', 'everywhere=2');
    assert.match(scaled.stderr, /service everywhere cannot be scaled: it is global/);
    await cli('service', 'stop', 'everywhere');
    await untilOn(id, []);
    await cli('service', 'rm', 'everywhere');
  });

  test('a job runs as often as it is to complete, and again for each change of it', async () => {
    const flags = ['--mode', 'replicated-job', '--replicas', '4', '--max-concurrent', '2'];
    const id = await create(['--name', 'work', ...flags], 'sleep 0.2');
    const done = async () =>
      (await tasksOf(cluster.node(0), id)).filter(({ status }) => status.state === 'complete');
    assert.equal((await done()).length, 4, 'create waits for completion');
    assert.equal(await column('work', 'Replicas'), '0/2 (4/4 completed)');
    assert.ok((await done()).every(({ desiredState }) => desiredState === 'complete'));

    assert.match(await cli('service', 'update', '--force', 'work'), /job complete/);
    assert.equal((await done()).filter(({ specVersion }) => specVersion === 2).length, 4);
    await cli('service', 'scale', 'work=1');
    assert.equal(await column('work', 'Replicas'), '0/1 (1/1 completed)');
    const refused = await cluster.node(0).cli('service', 'update', '--update-delay', '1s', 'work');
    assert.match(refused.stderr, /update-config/);
    await cli('service', 'rm', 'work');
  });

  test('a global job completes once on each node, and what fails is tried again where that is wanted', async () => {
    const flags = ['--name', 'each', '--mode', 'global-job', '--restart-delay', '50ms'];
    const id = await create(
      [...flags, '--mount', 'source=mdtried,target=/tried'],
      '[ -e /tried/once ] && exit 0; touch /tried/once; exit 1',
    );
    const ended = (await tasksOf(cluster.node(0), id)).filter(({ status }) => status.state === 'complete');
    assert.deepEqual(
      ended.map((task) => task.nodeId).sort(),
      (await Promise.all([0, 1, 2].map(nodeId))).sort(),
    );
    const failed = (await tasksOf(cluster.node(0), id)).filter(({ status }) => status.state === 'failed');
    assert.equal(failed.length, 3);
    await cli('service', 'rm', 'each');
    const broken = await cluster
      .node(0)
      .cli(
        'service',
        'create',
        '--no-resolve-image',
        '--name',
        'broken',
        '--mode',
        'replicated-job',
        '--restart-condition',
        'none',
        IMAGE,
        'false',
      );
    assert.equal(broken.code, 1);
    assert.match(broken.stderr, /the job cannot complete/);
    await cli('service', 'rm', 'broken');
  });

  for (const runtime of ['crun', 'runc'])
    test(`limits and labels change in a container that ${runtime} runs, and a limit below what it uses is told`, async () => {
      const name = `limited-${runtime}`;
      const use = `dd if=/dev/zero of=/dev/shm/full bs=1M count=40 2>/dev/null; ${IDLE}`;
      const id = await create(
        ['--name', name, '--runtime', runtime, '--update-monitor', '0s', '--limit-memory', '128M'],
        use,
      );
      const [before] = await running(id);
      await untilHolds(async () => assert.ok((await memoryOf(name)).usage > 40 * MIB));
      const isSettled = async (specVersion: number) => {
        const [task] = await running(id);
        assert.deepEqual([task?.specVersion, task?.status.message], [specVersion, 'started']);
      };
      await cli('service', 'update', '--limit-memory', '160M', name);
      await untilHolds(() => isSettled(2));
      assert.equal((await memoryOf(name)).limit, 160 * MIB);
      await cli(
        'service',
        'update',
        '--limit-memory',
        '200M',
        '--limit-cpu',
        '0.5',
        '--label-add',
        'a=b',
        name,
      );

      await untilHolds(async () => assert.equal((await memoryOf(name)).limit, 200 * MIB));
      const [after_] = await running(id);
      assert.equal(after_?.id, before?.id);
      assert.equal(after_?.specVersion, 3);
      assert.equal(after_?.status.container?.pid, before?.status.container?.pid);

      await cli('service', 'update', '--limit-memory', '16M', '--limit-cpu', '0', '--detach', name);
      await untilHolds(async () => {
        const [task] = await running(id);
        assert.equal(task?.id, before?.id);
        assert.match(
          task?.status.message ?? '',
          /former limits: the limit of memory is below what the container uses/,
        );
      });
      assert.equal((await memoryOf(name)).limit, 200 * MIB);
      assert.match(await cli('service', 'ps', '--no-trunc', name), /with its former limits/);
      assert.match((await cluster.node(0).cli('why', name)).stdout, /raise the limit of limited/);
      const history = await cli('service', 'history', name);
      assert.match(history, /VERSION +AGE +BY +CHANGES/);
      assert.match(history, /uid 0 on \S+ +limits/);
      assert.match(history, /limits memory-bytes: 167772160 → 209715200/);

      await cli('service', 'rollback', '--to', '3', name);
      await untilHolds(async () => assert.equal((await running(id))[0]?.status.message, 'started'));
      assert.equal((await running(id))[0]?.id, before?.id);
      await cli('service', 'update', '--limit-memory', '0', '--limit-cpu', '0', name);
      await untilHolds(async () => assert.ok((await memoryOf(name)).limit > 2 ** 50));
      await untilHolds(() => isSettled(6));
      assert.equal((await running(id))[0]?.id, before?.id);
      const unknown = await cluster.node(0).cli('service', 'rollback', '--to', '77', name);
      assert.match(unknown.stderr, /version 77 of service limited-.* is not kept/);
      await cli('service', 'rm', name);
    });

  test('a task goes when its node loses the label, and an update that finds no node says so', async () => {
    for (const host of [0, 1]) await cli('node', 'update', '--label-add', 'disk=ssd', await nodeId(host));
    const id = await create([
      '--name',
      'picky',
      '--constraint',
      'node.labels.disk==ssd',
      '--stop-grace-period',
      '1s',
    ]);
    const [task] = await running(id);
    const other = (await nodeId(0)) === task?.nodeId ? await nodeId(1) : await nodeId(0);
    await cli('node', 'update', '--label-rm', 'disk', task?.nodeId ?? '');
    await untilHolds(
      async () =>
        assert.deepEqual(
          (await running(id)).map((now) => now.nodeId),
          [other],
        ),
      20_000,
    );
    assert.match(
      await cli('service', 'ps', '--no-trunc', 'picky'),
      /does not satisfy the constraint node.labels.disk==ssd any more/,
    );

    const flags = [
      '--update-order',
      'start-first',
      '--update-deadline',
      '1s',
      '--constraint-add',
      'node.labels.disk==tape',
    ];
    await cli('service', 'update', '--detach', ...flags, 'picky');
    await untilHolds(async () => {
      const said = await cli('service', 'inspect', '--format', '{{json .UpdateStatus}}', 'picky');
      assert.match(
        said,
        /no progress since .*: no suitable node \(scheduling constraints not satisfied on 3 nodes\)/,
      );
    }, 20_000);
    const why = await cluster.node(0).cli('why', 'picky');
    assert.match(why.stdout, /no progress since/);
    assert.equal((await running(id)).filter((now) => !isTerminal(now.status.state)).length, 1);
    await cli('service', 'rm', 'picky');
  });

  test('a service that finds no node runs when its constraint is taken away, or the spec before comes back', async () => {
    const constraint = 'node.labels.rack==none';
    const id = await create(['--detach', '--name', 'stuck', '--constraint', constraint]);
    await untilHolds(
      async () => assert.match(await cli('service', 'ps', 'stuck'), /no suitable node/),
      10_000,
    );
    await cli('service', 'update', '--constraint-rm', constraint, 'stuck');
    assert.equal((await running(id)).length, 1);

    await cli('service', 'update', '--detach', '--constraint-add', constraint, 'stuck');
    await untilHolds(
      async () => assert.match(await cli('service', 'ps', 'stuck'), /no suitable node/),
      10_000,
    );
    await cli('service', 'rollback', 'stuck');
    assert.equal((await running(id)).length, 1);
    await cli('service', 'rm', 'stuck');
  });

  async function memoryOf(name: string): Promise<{ readonly limit: number; readonly usage: number }> {
    const script =
      'cd /sys/fs/cgroup; if [ -e memory.max ]; then cat memory.max memory.current; else cat memory/memory.limit_in_bytes memory/memory.usage_in_bytes; fi';
    const [limit = 0, usage = 0] = (await cli('exec', `${name}.1`, 'sh', '-c', script))
      .trim()
      .replace('max', 'Infinity')
      .split(/\s+/)
      .map(Number);
    return { limit, usage };
  }
});
