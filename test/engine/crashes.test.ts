import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { containerdPlaces } from '../../agent/engine/containerd/configuration.ts';
import { type Containerd, connectContainerd, SNAPSHOTTER } from '../../agent/engine/containerd/connection.ts';
import type { ContainerState } from '../../agent/engine/engine.ts';
import { type OpenEngineOptions, openEngine } from '../../agent/engine/open.ts';
import {
  aContainer,
  collectLogs,
  endEngine,
  engineOptions,
  hasCrun,
  importDemoImage,
  missingForEngine,
  openTestEngine,
  testLog,
} from '../support/engine.ts';
import { killHard, spawnEngine } from '../support/engine-process.ts';
import { eventually } from '../support/eventually.ts';

// containerd makes a task in some tens of milliseconds.
const CREATING_MS = 15;

const counting = (until: number, pause: string) =>
  `i=0; while [ $i -lt ${until} ]; do echo $i; i=$((i+1)); ${pause} done; exit 5`;

function assertCounted(lines: readonly string[], until: number): void {
  assert.equal(lines.length, until);
  for (const [index, line] of lines.entries()) assert.equal(line, `${index}\n`);
}

for (const runtime of ['runc', 'crun'] as const) {
  const skip = missingForEngine || (runtime === 'crun' && !hasCrun ? 'needs crun' : false);
  describe(`after a crash, on ${runtime}`, { skip }, () => {
    test('a killed containerd loses no container, exit code or line', async () => {
      await using own = await openTestEngine({ runtime });
      const { engine } = own;
      await importDemoImage(engine);
      const steady = aContainer();
      const brief = aContainer({ args: ['sh', '-c', counting(20, 'sleep 0.05;')] });
      for (const config of [steady, brief]) {
        await engine.containers.create(config);
        await engine.containers.start(config.id);
      }
      const before = await engine.containers.inspect(steady.id);
      const waiting = engine.containers.wait(brief.id);
      const killed = engine.containerdPid as number;

      process.kill(killed, 'SIGKILL');
      const exit = await waiting;
      const lines = (await collectLogs(engine, brief.id, { follow: true })).map(({ line }) => line);

      assert.equal(exit.exitCode, 5);
      assertCounted(lines, 20);
      await eventually(() => engine.containerdPid !== undefined && engine.containerdPid !== killed);
      assert.deepEqual(await engine.containers.inspect(steady.id), before);
      const later = aContainer();
      await eventually(async () => {
        await engine.containers.create(later);
        return (await engine.containers.start(later.id)) > 0;
      });
      await engine.containers.stop(steady.id, 0);
      assert.equal((await engine.containers.wait(steady.id)).exitCode, 137);
    });

    for (const isContainerdKilled of [false, true])
      test(`a killed daemon loses no container, exit code or line, ${isContainerdKilled ? 'though containerd dies as well' : 'and its containerd is adopted'}`, async () => {
        const options = engineOptions({ runtime });
        let engine = await openEngine(options);
        await importDemoImage(engine);
        const pid = engine.containerdPid;
        await engine[Symbol.asyncDispose]();
        const steady = aContainer({ labels: { 'a.b': 'x'.repeat(10_000) } });
        const gone = aContainer({ args: ['sh', '-c', `echo first; sleep 0.5; echo last; exit 6`] });
        const talking = aContainer({ args: ['sh', '-c', counting(3000, '')] });
        const counted = aContainer({ args: ['sh', '-c', counting(200, 'sleep 0.01;')] });
        try {
          const child = await spawnEngine(options, [steady, gone, talking, counted]);
          await killHard(child);
          if (isContainerdKilled) process.kill(pid as number, 'SIGKILL');
          await eventually(() => countSpoolBytes(options, gone.id) >= 11);
          engine = await openEngine(options);

          assert.equal(engine.containerdPid === pid, !isContainerdKilled);
          assert.equal((await engine.containers.wait(gone.id)).exitCode, 6);
          assert.equal((await engine.containers.wait(talking.id)).exitCode, 5);
          assert.equal((await engine.containers.wait(counted.id)).exitCode, 5);
          const text = async (id: string) =>
            (await collectLogs(engine, id, { follow: true })).map(({ line }) => line);
          assert.deepEqual(await text(gone.id), ['first\n', 'last\n']);
          assertCounted(await text(talking.id), 3000);
          assertCounted(await text(counted.id), 200);
          const summary = await engine.containers.inspect(steady.id);
          assert.equal(summary?.status.state, 'running');
          assert.deepEqual(summary?.labels, steady.labels);
          assert.equal((await engine.images.find('demo:1'))?.tags[0], 'demo:1');
        } finally {
          engine = await reopened(engine, options);
          await endEngine(engine, options);
        }
      });

    for (const isTaskLeft of [true, false])
      test(`an end that a killed daemon had noted ${isTaskLeft ? 'before its task was deleted' : 'before its log was complete'} leaves no line behind`, async () => {
        await using own = await openTestEngine({ runtime });
        const { engine, options } = own;
        await importDemoImage(engine);
        const talking = aContainer({ args: ['sh', '-c', `sleep 1; ${counting(3000, '')}`] });
        await engine.containers.create(talking);
        await engine.containers.start(talking.id);
        await engine[Symbol.asyncDispose]();
        const raw = connectRaw(options);
        await eventually(async () => {
          const { process: task } = await raw.tasks.get({ containerId: talking.id });
          return task?.status === 'stopped';
        });
        if (!isTaskLeft) await raw.tasks.delete({ containerId: talking.id });
        raw.close();
        const exit = { exitCode: 5, exitedAtMs: Date.now(), outOfMemory: false };
        appendFileSync(
          path.join(options.dataRoot, 'containers', talking.id, 'container.jsonl'),
          `${JSON.stringify({ exit })}\n`,
        );

        own.engine = await openEngine(options);

        const lines = await collectLogs(own.engine, talking.id, { follow: true });
        assertCounted(
          lines.map(({ line }) => line),
          3000,
        );
        assert.deepEqual(readdirSync(path.join(options.dataRoot, 'spool')), []);
      });

    test('a start that was cut off is completed, and a container in that state can be removed', async () => {
      await using own = await openTestEngine({ runtime });
      const { engine, options } = own;
      await importDemoImage(engine);
      const [started, removed] = [aContainer(), aContainer()];
      for (const config of [started, removed]) await engine.containers.create(config);
      const raw = connectRaw(options);
      for (const { id } of [started, removed]) {
        const { mounts } = await raw.snapshots.mounts({ snapshotter: SNAPSHOTTER, key: id });
        const none = { stdin: '', stdout: '', stderr: '', terminal: false };
        await raw.tasks.create({ containerId: id, rootfs: mounts, ...none });
      }
      raw.close();
      await own.reopen();

      assert.equal((await own.engine.containers.inspect(started.id))?.status.state, 'created');
      assert.ok((await own.engine.containers.start(started.id)) > 0);
      await own.engine.containers.remove(removed.id);
      await own.engine.containers.create(removed);
      await own.engine.containers.start(removed.id);
    });

    test('starts that are cut off while containerd works on them are completed or ended, and leave nothing', async () => {
      const options = engineOptions({ runtime });
      let engine = await openEngine(options);
      await importDemoImage(engine);
      await engine[Symbol.asyncDispose]();
      const configs = Array.from({ length: 6 }, () => aContainer());
      try {
        const child = await spawnEngine(options, configs, 'starting');
        await delay(CREATING_MS);
        await killHard(child);
        engine = await openEngine(options);

        // containerd ends some of those whose maker has gone when they have begun already.
        const starts = await Promise.allSettled(configs.map(({ id }) => engine.containers.start(id)));
        const failures = starts.flatMap((start) => (start.status === 'rejected' ? String(start.reason) : []));
        assert.deepEqual(
          failures.filter((failure) => !failure.includes('has ended and does not start again')),
          [],
        );
        await eventually(async () =>
          (await engine.containers.list()).every(
            ({ status }) => status.state === 'exited' || existsSync(`/proc/${runningPidOf(status)}`),
          ),
        );
        for (const { id } of configs) await engine.containers.remove(id);

        const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
        assert.deepEqual(
          mounts.filter((mount) => configs.some(({ id }) => mount.includes(`/${id}/`))),
          [],
        );
      } finally {
        engine = await reopened(engine, options);
        await endEngine(engine, options);
      }
    });

    test('a process whose record is lost is ended', async () => {
      await using own = await openTestEngine({ runtime });
      await importDemoImage(own.engine);
      const config = aContainer();
      await own.engine.containers.create(config);
      const pid = await own.engine.containers.start(config.id);
      await own.engine[Symbol.asyncDispose]();
      const raw = connectRaw(own.options);
      await raw.containers.delete({ id: config.id });
      raw.close();

      own.engine = await openEngine(own.options);

      assert.equal(existsSync(`/proc/${pid}`), false);
      assert.deepEqual(await own.engine.containers.list(), []);
    });

    test('a killed shim ends its containers with code 137', async () => {
      await using own = await openTestEngine({ runtime });
      await importDemoImage(own.engine);
      const config = aContainer();
      await own.engine.containers.create(config);
      const pid = await own.engine.containers.start(config.id);

      process.kill(parentOf(pid), 'SIGKILL');

      assert.equal((await own.engine.containers.wait(config.id)).exitCode, 137);
    });

    test('a container whose process is gone without a trace has ended with 137, after a reboot with 255', async () => {
      await using own = await openTestEngine({ runtime });
      await importDemoImage(own.engine);
      const [killed, rebooted] = [aContainer(), aContainer()];
      for (const config of [killed, rebooted]) await own.engine.containers.create(config);
      const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
      const mark = (id: string, boot: string) =>
        appendFileSync(
          path.join(own.options.dataRoot, 'containers', id, 'container.jsonl'),
          `${JSON.stringify({ bootId: boot })}\n`,
        );
      mark(killed.id, bootId);
      mark(rebooted.id, 'another boot');

      await own.reopen();

      assert.equal((await own.engine.containers.wait(killed.id)).exitCode, 137);
      assert.equal((await own.engine.containers.wait(rebooted.id)).exitCode, 255);
    });

    test('a network namespace pinned below the run directory can be joined, also after containerd was killed', async () => {
      await using own = await openTestEngine({ runtime });
      const { engine, options } = own;
      await importDemoImage(engine);
      const pin = path.join(options.runDir, 'netns');
      writeFileSync(pin, '');
      execFileSync('unshare', [
        '--net',
        'sh',
        '-c',
        `ip addr add 10.99.0.1/32 dev lo; mount --bind /proc/self/ns/net ${pin}`,
      ]);
      try {
        const network = { namespacePath: pin, resolvConf: 'nameserver 127.0.0.11\n', address: '10.0.0.7' };
        const look = async () => {
          const config = aContainer({
            args: ['sh', '-c', 'ip addr; cat /etc/resolv.conf /etc/hosts'],
            network,
          });
          await engine.containers.create(config);
          await engine.containers.start(config.id);
          await engine.containers.wait(config.id);
          return (await collectLogs(engine, config.id, { follow: true })).map(({ line }) => line).join('');
        };
        const before = await look();
        const killed = engine.containerdPid as number;
        process.kill(killed, 'SIGKILL');
        await eventually(() => engine.containerdPid !== undefined && engine.containerdPid !== killed);
        const after = await eventually(() => look().catch(() => undefined));

        assert.match(before, /10\.99\.0\.1\/32.*nameserver 127\.0\.0\.11\n.*10\.0\.0\.7\tbox-/s);
        assert.match(after, /10\.99\.0\.1\/32/);
      } finally {
        execFileSync('umount', [pin]);
      }
    });
  });
}

function connectRaw({ dataRoot, runDir, engineId }: OpenEngineOptions): Containerd {
  return connectContainerd(containerdPlaces(dataRoot, runDir).socketPath, `tsswarm-${engineId}`);
}

function runningPidOf(status: ContainerState): number {
  assert.equal(status.state, 'running');
  return status.state === 'running' ? status.pid : 0;
}

async function reopened(
  engine: Awaited<ReturnType<typeof openEngine>>,
  options: OpenEngineOptions,
): Promise<Awaited<ReturnType<typeof openEngine>>> {
  await engine[Symbol.asyncDispose]();
  return openEngine({ ...options, log: testLog });
}

function countSpoolBytes(options: OpenEngineOptions, id: string): number {
  const directory = path.join(options.dataRoot, 'spool');
  const name = readdirSync(directory).find((file) => file === `${id}.out`);
  return name === undefined ? 0 : readFileSync(path.join(directory, name)).length;
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}
