// Nodes that are drained, fall silent and come back, and what operators are told of it: real daemons on three hosts, asked
// by the command line.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Task } from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { IDLE, tasksOf } from '../support/services.ts';

const IMAGE = 'localhost/bb:1';
const QUICK = ['--stop-grace-period', '1s', '--update-monitor', '0s'];

describe('nodes', { skip: whyNoRealNode() ?? false, timeout: 120_000 }, () => {
  let cluster: RealCluster;
  let ids: readonly string[];
  /** Most of what a node has: no two tasks with it fit on one. */
  let most: string;

  before(async () => {
    cluster = await RealCluster.start('ndnodes', 3);
    await cluster.init();
    for (const host of [1, 2]) await cluster.join(host, 'worker');
    const { archive } = await buildDemoImage({ name: IMAGE });
    for (const node of cluster.nodes) await node.importImage(archive);
    const nodes = await Promise.all([0, 1, 2].map((host) => cluster.until(host, isReady)));
    ids = nodes.map(({ id }) => id);
    most = String(Math.floor((nodes[0]?.description.resources.memoryBytes ?? 0) * 0.6));
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const isReady = ({ status }: { status: { state: string } }) => status.state === 'ready';
  const run = (...args: readonly string[]) => cluster.node(0).cli(...args);
  const cli = async (...args: readonly string[]) => (await cluster.node(0).succeed(...args)).stdout;
  const create = async (...flags: readonly string[]) =>
    (await cli('service', 'create', '--no-resolve-image', ...QUICK, ...flags, IMAGE, 'sh', '-c', IDLE)).split(
      '\n',
    )[0] ?? '';
  const running = async (serviceId: string): Promise<Task[]> =>
    (await tasksOf(cluster.node(0), serviceId)).filter(
      (task) => isWanted(task) && task.status.state === 'running',
    );
  /** Running tasks on each host. */
  const spread = async (serviceId: string): Promise<number[]> => {
    const tasks = await running(serviceId);
    return ids.map((id) => tasks.filter(({ nodeId }) => nodeId === id).length);
  };
  const untilSpread = (serviceId: string, wanted: readonly number[]) =>
    eventually(async () => {
      assert.deepEqual(await spread(serviceId), wanted);
      return true;
    }, 30_000);
  const host = (position: number) => cluster.lan.hosts[position] ?? '';

  test('a dry run tells what would be done and where, changes nothing, and refuses what does not fit', async () => {
    const asked = [
      'service',
      'create',
      '--dry-run',
      '--no-resolve-image',
      '--name',
      'planned',
      '--reserve-memory',
      most,
    ];
    const fits = await run(...asked, '--replicas', '3', IMAGE);
    assert.equal(fits.code, 0, fits.stderr);
    assert.match(fits.stdout, /planned would be created/);
    assert.match(fits.stdout, new RegExp(`room for them on ${host(0)}: 1, ${host(1)}: 1, ${host(2)}: 1`));
    const tooMany = await run(...asked, '--replicas', '4', IMAGE);
    assert.equal(tooMany.code, 1);
    assert.match(tooMany.stdout, /no room for 1 of 4 tasks: needs .* free .* at most on a node/);
    assert.equal(await cli('service', 'ls', '-q'), '');

    const id = await create('--name', 'web', '--replicas', '2');
    const changed = await run(
      'service',
      'update',
      '--dry-run',
      '--no-resolve-image',
      '--env-add',
      'A=b',
      '--replicas',
      '3',
      'web',
    );
    assert.equal(changed.code, 0, changed.stderr);
    assert.match(changed.stdout, /env: \+A=b[\s\S]*1 would be created; 2 replaced, 1 at a time, stop-first/);
    assert.equal((await running(id)).length, 2);
    assert.match(await cli('why', 'update', 'web'), /no update is under way/);
    await cli('service', 'update', '--quiet', '--env-add', 'A=b', 'web');
    assert.match(
      await cli('why', 'update', 'web'),
      /completed: update completed[\s\S]*2 of 2 tasks run with spec number 2/,
    );
    await cli('service', 'rm', 'web');
  });

  test('a drained node gives its tasks away one by one, each after its successor, unless they fit nowhere else', async () => {
    const big = await create('--name', 'big', '--replicas', '3', '--reserve-memory', most);
    const refused = await run('node', 'update', '--availability', 'drain', host(1));
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /service big will not fit \(1 task\): needs .* free .* at most on a node/);
    const capacity = await run('cluster', 'capacity');
    assert.equal(capacity.code, 1);
    assert.match(capacity.stdout, new RegExp(`${host(1)} +1 +No +big \\(1\\): needs`));
    assert.match(await cli('why', 'node', host(1)), /if it died, these services would not fit: big/);
    assert.deepEqual(await spread(big), [1, 1, 1]);
    await cli('service', 'rm', 'big');
    assert.equal((await run('cluster', 'capacity')).code, 0);

    const id = await create('--name', 'steady', '--replicas', '6', '--update-order', 'start-first');
    assert.deepEqual(await spread(id), [2, 2, 2]);
    const seen: number[] = [];
    const gone = new AbortController();
    const watching = (async () => {
      const tasks = new Map<string, Task>();
      for await (const news of cluster
        .node(0)
        .control.watchService({ serviceId: id }, { signal: gone.signal })) {
        for (const task of news.tasks) tasks.set(task.id, task);
        seen.push([...tasks.values()].filter(({ status }) => status.state === 'running').length);
      }
    })().catch(() => undefined);
    await cli('node', 'drain', '--rate', '1', host(1));
    await untilSpread(id, [3, 0, 3]);
    gone.abort();
    await watching;
    assert.ok(
      seen.every((count) => count >= 6 && count <= 7),
      seen.join(' '),
    );
    // The last one has to end yet.
    await eventually(async () => {
      assert.match((await run('why', 'node', host(1))).stdout, /it is being drained since .*: 0 tasks left/);
      return true;
    });
    await cli('node', 'update', '--availability', 'active', host(1));
    await cli('service', 'rm', 'steady');
  });

  test('a service that wants it moves to a node that comes back, as far as that makes it more even', async () => {
    await cli('node', 'drain', host(1));
    const id = await create('--name', 'even', '--replicas', '4', '--rebalance');
    assert.deepEqual(await spread(id), [2, 0, 2]);
    const before = await running(id);
    await cli('node', 'update', '--availability', 'active', host(1));
    await eventually(async () => {
      const [, second] = await spread(id);
      assert.equal(second, 1);
      assert.equal((await running(id)).length, 4);
      return true;
    }, 30_000);
    const kept = (await running(id)).filter((task) => before.some((other) => other.id === task.id));
    assert.equal(kept.length, 3);
    await cli('service', 'rm', 'even');
  });

  test('of two nodes that fall silent at once one is given up, and the other keeps what it has (B6: moby#43508)', async () => {
    await cli('cluster', 'update', '--orphan-after', '10s', '--node-suspect-after', '1500ms');
    const id = await create('--name', 'torn', '--replicas', '6');
    const before = await running(id);
    cluster.lan.cut(1, [0]);
    cluster.lan.cut(2, [0]);
    await cluster.until(1, ({ status }) => status.state === 'suspect' || status.state === 'down');
    const held = await eventually(async () => {
      const nodes = await Promise.all([1, 2].map((position) => cluster.find(position)));
      assert.ok(nodes.every(({ status }) => status.state === 'down'));
      const found = nodes.filter(({ status }) => status.held);
      assert.equal(found.length, 1);
      return found[0];
    }, 30_000);
    const isHeld = ({ nodeId }: Task) => nodeId === held?.id;
    assert.match(await cli('node', 'ls'), new RegExp(`${held?.description.hostname} +Down \\(held\\)`));
    const why = await run('why', held?.description.hostname ?? '');
    assert.equal(why.code, 1);
    assert.match(why.stdout, /not replaced yet: too many nodes are down: 1 of 3[\s\S]*--reschedule-max 100/);
    await eventually(async () => {
      const tasks = await tasksOf(cluster.node(0), id);
      assert.equal(tasks.filter(({ status }) => status.state === 'orphaned').length, 2);
      assert.equal((await running(id)).length, 6);
      return true;
    }, 30_000);
    assert.deepEqual(idsOf((await running(id)).filter(isHeld)), idsOf(before.filter(isHeld)));

    cluster.lan.heal();
    for (const position of [1, 2]) await cluster.until(position, isReady);
    await eventually(async () => {
      const live = (await tasksOf(cluster.node(0), id)).filter(({ status }) => status.state === 'running');
      assert.equal(live.length, 6);
      assert.deepEqual(idsOf(live.filter(isHeld)), idsOf(before.filter(isHeld)));
      return true;
    }, 30_000);
    await cli('service', 'rm', 'torn');
  });
});

const idsOf = (tasks: readonly Task[]) => tasks.map(({ id }) => id).sort();
