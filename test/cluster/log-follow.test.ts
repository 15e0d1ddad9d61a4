// `service logs --follow` through what happens to a worker, whose daemon is killed and whose files are rotated and compressed,
// and to managers: another one leads.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { type RealNode, whyNoRealNode } from '../support/real-node.ts';

const image = 'localhost/erl:1';
const CLI = path.join(import.meta.dirname, '..', '..', 'dist', 'bin', 'tsswarm');
const WORKER = 1;
// Counts, once a period.
const COUNT = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done';

describe('logs that are followed', { skip: whyNoRealNode() ?? false }, () => {
  let cluster: RealCluster;
  const followers: ChildProcess[] = [];

  before(async () => {
    cluster = await RealCluster.start('erl', 3);
    await cluster.init();
    await cluster.join(WORKER, 'worker');
    await cluster.join(2, 'manager');
    await cluster.node(WORKER).importImage((await buildDemoImage({ name: image })).archive);
  });
  after(async () => {
    for (const follower of followers) follower.kill('SIGKILL');
    await cluster?.[Symbol.asyncDispose]();
  });

  const create = (name: string, ...flags: readonly string[]) =>
    cluster
      .node(0)
      .succeed(
        ...['service', 'create', '--name', name, '--no-resolve-image'],
        ...['--update-monitor', '100ms', '--constraint', 'node.role==worker'],
        ...[...flags, image, 'sh', '-c', COUNT],
      );
  /** What has been heard so far. */
  const follow = (name: string, ...flags: readonly string[]) => followAt(0, name, ...flags);
  const followAt = (position: number, name: string, ...flags: readonly string[]) => {
    const args = ['service', 'logs', '--raw', '--follow', ...flags, name];
    const child = startAt(cluster.node(position), args);
    followers.push(child);
    let text = '';
    child.stdout?.on('data', (data) => {
      text += data;
    });
    child.stderr?.on('data', (data) => {
      text += `stderr: ${data}`;
    });
    return () => text.split('\n').slice(0, -1);
  };

  test('go on where they were when the daemon of a worker is killed, without gaps or repeats', async () => {
    await create('count');
    const all = follow('count');
    await eventually(() => all().length > 50);
    const young = follow('count', '--tail', '0');
    await eventually(() => young().length > 5);

    for (let round = 0; round < 2; round += 1) {
      await cluster.node(WORKER).killDaemon();
      const heard = all().length;
      await cluster.node(WORKER).startDaemon();
      await eventually(() => all().length > heard + 100, 30_000);
    }

    for (const lines of [all(), young()]) assertCounted(lines);
    assert.equal(all()[0], '1');
    assert.ok(young().length > 100);
  });

  test('go on with another leader, whichever manager was asked', async () => {
    const asked = [0, 2].flatMap((position) => [
      followAt(position, 'count'),
      followAt(position, 'count', '--tail', '0'),
    ]);
    await eventually(() => asked.every((lines) => lines().length > 5));
    /** Of two managers neither leads alone: when one comes back, it may be either that is elected. */
    const leader = () =>
      eventually(async () => {
        for (const position of [0, 2])
          if ((await cluster.find(position)).managerStatus?.leader) return cluster.node(position);
        throw new Error('nobody leads');
      }, 30_000);
    const goesOn = async (end: (node: RealNode) => Promise<void>) => {
      const node = await leader();
      const heard = asked.map((lines) => lines().length);
      await end(node);
      await node.startDaemon();
      await eventually(
        () => asked.every((lines, index) => lines().length > (heard[index] ?? 0) + 100),
        30_000,
      );
    };
    // One hands its leadership on, the other one dies.
    await goesOn((node) => node.stopDaemon());
    await goesOn((node) => node.killDaemon());
    for (const lines of asked) assertCounted(lines());
  });

  test('go on through files that are rotated and compressed, and the whole log is read through them', async () => {
    await create(
      'dense',
      '--log-opt',
      'max-size=4k',
      '--log-opt',
      'max-file=200',
      '--log-opt',
      'compress=true',
    );
    const lines = follow('dense');
    await eventually(() => lines().length > 300, 30_000);

    const read = await cluster.node(0).succeed('service', 'logs', '--raw', 'dense');
    const whole = read.stdout.trim().split('\n');
    for (const numbers of [whole, lines()])
      assert.deepEqual(
        numbers,
        numbers.map((_, index) => String(index + 1)),
      );
    const root = path.join(cluster.node(WORKER).dataRoot, 'containers');
    const files = (await readdir(root, { recursive: true })).filter((name) => name.endsWith('.gz'));
    assert.ok(files.length > 3, `${files.length} files are compressed`);
    assert.equal((await cluster.node(0).cli('service', 'rm', 'dense', 'count')).code, 0);
  });

  test('a wrong use of compression is refused by name', async () => {
    const refused = await cluster
      .node(0)
      .cli(...['service', 'create', '--log-opt', 'compress=true', '--log-opt', 'max-size=1m', image]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /log-opt: compress needs max-size, and a max-file of 2 or more/);
  });
});

/** One after the other, from whichever is the first. */
function assertCounted(lines: readonly string[]): void {
  const first = Number(lines[0]);
  assert.deepEqual(
    lines,
    lines.map((_, index) => String(first + index)),
  );
}

function startAt(node: RealNode, args: readonly string[]): ChildProcess {
  const env = { ...process.env, TSSWARM_HOST: `unix://${path.join(node.runDir, 'control.sock')}` };
  return spawn(CLI, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
}
