// What happens to the machine under a node: it is switched off and on again, or its disk is full.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { NetnsLan } from '../support/netns-lan.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { missingForRegistry, startRegistry } from '../support/real-registry.ts';
import { createService, tasksOf, untilRunning } from '../support/services.ts';

const IMAGE = 'localhost/bb:1';
const CONVERGED_LIMIT_MS = 60_000;
const MEGABYTE = 2 ** 20;

/** No process of the node is left, and nothing of what it kept in memory: as after a loss of power. */
async function loseMemory(node: RealNode, lan: NetnsLan, containers: readonly number[]): Promise<void> {
  await node.killDaemon();
  const own = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isOf(node, name));
  for (const pid of [...own.map(Number), ...containers]) process.kill(pid, 'SIGKILL');
  await eventually(() => ![...own, ...containers.map(String)].some((pid) => isOf(node, pid)));
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((place) => place.startsWith(node.directory));
  for (const place of mounts.reverse()) execFileSync('umount', ['-l', place]);
  rmSync(node.runDir, { recursive: true, force: true });
  const [host = ''] = lan.hosts;
  lan.run(host, 'nft', 'flush', 'ruleset');
  for (const [, link = ''] of lan.output(host, 'ip', '-o', 'link').matchAll(/^\d+: (tsu-[^@:]+)/gm))
    lan.run(host, 'ip', 'link', 'delete', link);
}

function isOf({ directory }: RealNode, pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(directory);
  } catch {
    return false;
  }
}

describe('a machine', { skip: whyNoRealNode() ?? false }, () => {
  test('that was switched off runs its services again, with volumes and without traces of before', async () => {
    using lan = new NetnsLan('tsp', 1);
    await using node = await RealNode.start({ netns: lan.hosts[0] ?? '' });
    await node.succeed('init', '--advertise-addr', lan.addressOf(0));
    await node.importImage((await buildDemoImage({ name: IMAGE })).archive);
    await node.succeed('network', 'create', 'front');
    const script = 'date +%s%N >> /data/starts; trap "exit 0" TERM; while :; do sleep 1000 & wait $!; done';
    const flags = [
      '--network',
      'front',
      '--publish',
      '8080:80',
      '--mount',
      'type=volume,source=kept,target=/data',
    ];
    const words = ['--detach', '--no-resolve-image', '--name', 'web', ...flags, IMAGE, 'sh', '-c', script];
    await node.succeed('service', 'create', ...words);
    const { service } = await node.control.getService({ service: 'web' });
    const [before] = await untilRunning(node, service.id, 1);

    await loseMemory(node, lan, [before?.status.container?.pid ?? 0]);
    await node.startDaemon();

    const [after] = await eventually(async () => {
      const running = await untilRunning(node, service.id, 1);
      return running[0]?.id !== before?.id && running;
    }, CONVERGED_LIMIT_MS);
    const starts = readFileSync(`/proc/${after?.status.container?.pid}/root/data/starts`, 'utf8')
      .trim()
      .split('\n');
    assert.equal(starts.length, 2, 'the volume has what both containers wrote');
    const old = (await tasksOf(node, service.id)).find(({ id }) => id === before?.id);
    assert.match(old?.status.state ?? '', /failed|shutdown|complete/);
    await node.succeed('service', 'rm', 'web');
    await node.untilEmpty();
    await eventually(async () => (await node.overlayPins()).length === 0);
  });

  test('whose disk is full says so on the task, and runs it when there is room', {
    skip: missingForRegistry,
  }, async () => {
    const dataRoot = mkdtempSync(path.join(tmpdir(), 'tsw-disk-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', dataRoot]);
    try {
      await using registry = await startRegistry();
      const layers = [{ 'large/file': randomBytes(100 * MEGABYTE) }];
      await registry.push('large', '1', await buildDemoImage({ name: 'large:1', layers }));
      await using node = await RealNode.start({ dataRoot });
      await node.init();
      const service = await createService(node, 'large', { image: `${registry.host}/large:1` });
      await eventually(async () => {
        const tasks = await tasksOf(node, service.id);
        return tasks.some(({ status }) =>
          /there is room for \d+ on the disk|no space left/.test(status.error),
        );
      }, CONVERGED_LIMIT_MS);
      assert.match(
        (await node.cli('why', 'large')).stdout,
        /there is room for \d+ on the disk|no space left/,
      );
      execFileSync('mount', ['-o', 'remount,size=1g', dataRoot]);
      await eventually(() => untilRunning(node, service.id, 1), CONVERGED_LIMIT_MS);
      await node.succeed('service', 'rm', 'large');
      await node.untilEmpty();
    } finally {
      execFileSync('umount', ['-l', dataRoot]);
      rmSync(dataRoot, { recursive: true, force: true });
    }
  });
});
