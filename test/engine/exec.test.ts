// Commands beside the process of a running container.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerConfig, ExecRequest } from '../../agent/engine/engine.ts';
import { type OpenEngineOptions, openEngine } from '../../agent/engine/open.ts';
import { hasCode } from '../../core/errors.ts';
import { aContainer, endEngine, engineOptions, importDemoImage, onEachRuntime } from '../support/engine.ts';
import { eventually } from '../support/eventually.ts';
import { seededChance } from '../support/faults.ts';

onEachRuntime('commands in containers', (own, runtime) => {
  const containers = () => own().engine.containers;

  const start = async (overrides: Partial<ContainerConfig> = {}) => {
    const config = aContainer(overrides);
    await containers().create(config);
    const pid = await containers().start(config.id);
    const shell = (script: string, options: Partial<ExecRequest> = {}) =>
      containers().exec(config.id, { command: ['sh', '-c', script], timeoutMs: 20_000, ...options });
    const processes = () => processesBeside(pid);
    return { id: config.id, shell, processes, remove: () => containers().remove(config.id) };
  };

  test('a command has what the own process of its container has', async () => {
    const look =
      'id; pwd; hostname; echo $COLOUR; cat /proc/self/cgroup; grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status; ulimit -n';
    const box = await start({
      args: ['sh', '-c', `(${look}) > /tmp/own; exec sleep 1000`],
      user: 'web',
      workdir: '/home',
      hostname: 'box',
      env: ['COLOUR=red'],
    });

    await box.shell('until [ -s /tmp/own ]; do sleep 0.01; done');
    const { exitCode, output } = await box.shell(
      `(${look}) > /tmp/other; cmp /tmp/own /tmp/other; cat /tmp/other`,
    );

    assert.match(output, /^uid=1000\(web\).*\n\/home\nbox\nred\n/);
    assert.equal(exitCode, 0);
    await box.remove();
  });

  test('a command tells its exit code and what it wrote', async () => {
    const box = await start();

    const result = await box.shell('echo out; echo err >&2; exit 7');

    assert.deepEqual(
      { ...result, output: result.output.split('\n').sort() },
      {
        exitCode: 7,
        output: ['', 'err', 'out'],
        hasTimedOut: false,
      },
    );
    await box.remove();
  });

  test('of a long output the end is kept, in whole characters', async () => {
    const box = await start();

    const { exitCode, output } = await box.shell(
      'i=0; while [ $i -lt 30000 ]; do echo äöü; i=$((i+1)); done; printf end',
    );

    assert.equal(exitCode, 0);
    assert.match(output, /^[äöü\n]+end$/);
    assert.ok(Buffer.byteLength(output) <= 4096 && Buffer.byteLength(output) > 4090);
    await box.remove();
  });

  test('a command that takes too long is killed with what it has started', async () => {
    const box = await start();

    const results = await Promise.all(
      ['sleep 1000', 'echo busy; sleep 1000 | sleep 1000', 'trap "" TERM INT HUP; yes'].map((script) =>
        box.shell(script, { timeoutMs: 300 }),
      ),
    );

    assert.deepEqual(
      results.map(({ exitCode, hasTimedOut }) => [exitCode, hasTimedOut]),
      [
        [137, true],
        [137, true],
        [137, true],
      ],
    );
    assert.equal(results[1]?.output, 'busy\n');
    await eventually(() => box.processes().length === 0);
    assert.equal((await containers().inspect(box.id))?.status.state, 'running');
    await box.remove();
  });

  test('a command that is called off is killed', async () => {
    const box = await start();
    const off = new AbortController();
    const running = box.shell('sleep 1000', { signal: off.signal, timeoutMs: 600_000 });
    await eventually(() => box.processes().length > 0);

    off.abort(new Error('called off'));

    await assert.rejects(running, /called off/);
    await eventually(() => box.processes().length === 0);
    await assert.rejects(box.shell('true', { signal: off.signal }), /called off/);
    await box.remove();
  });

  test('what a command leaves running goes on', async () => {
    const box = await start();

    const { exitCode } = await box.shell('sleep 1000 & exit 3');

    assert.equal(exitCode, 3);
    assert.equal(box.processes().length, 1);
    await box.remove();
  });

  test('a command that is missing or no program is refused with the code a shell gives', async () => {
    const box = await start();

    for (const [program, code] of [
      ['no-such-program', 127],
      ['/etc/passwd', 126],
    ] as const)
      await assert.rejects(
        containers().exec(box.id, { command: [program], timeoutMs: 5_000 }),
        (error) =>
          hasCode(error, 'invalid-argument') &&
          error.message.includes(program) &&
          error.hint?.startsWith(`Exit code ${code}`) === true,
      );

    assert.equal((await box.shell('true')).exitCode, 0);
    await box.remove();
  });

  test('there is no command in a container that is not running', async () => {
    const config = aContainer({ args: ['true'] });
    const run = () => containers().exec(config.id, { command: ['true'], timeoutMs: 5_000 });

    await assert.rejects(run, (error) => hasCode(error, 'not-found'));
    await containers().create(config);
    await assert.rejects(run, (error) => hasCode(error, 'failed-precondition'));
    await containers().start(config.id);
    await containers().wait(config.id);
    await assert.rejects(run, (error) => hasCode(error, 'failed-precondition'));
    await containers().remove(config.id);
  });

  test('a command ends with its container', async () => {
    const box = await start();
    const running = box.shell('sleep 1000');
    // The runtime's own first steps are a process as well, and fail when they are cut off.
    await eventually(() =>
      box.processes().some((pid) => readIfThere(`/proc/${pid}/cmdline`).includes('sleep')),
    );

    await containers().stop(box.id, 0);

    assert.equal((await running).exitCode, 137);
    await box.remove();
    await eventually(() => readdirSync(path.join(own().options.runDir, 'exec')).length === 0, 15_000);
  });

  test('many commands at once all end, and leave nothing behind', async () => {
    const boxes = await Promise.all(Array.from({ length: 5 }, () => start()));

    const results = await Promise.all(
      Array.from({ length: 40 }, (_, index) => boxes[index % 5]?.shell(`echo ${index}; exit ${index}`)),
    );

    for (const [index, result] of results.entries())
      assert.deepEqual(result, { exitCode: index, output: `${index}\n`, hasTimedOut: false });
    assert.deepEqual(readdirSync(path.join(own().options.runDir, 'exec')), []);
    await Promise.all(boxes.map((box) => box.remove()));
  });

  test('a killed containerd ends the commands that ran, and later ones work', async () => {
    const box = await start();
    const running = box.shell('sleep 1000');
    await eventually(() => box.processes().length > 0);
    const killed = own().engine.containerdPid as number;

    process.kill(killed, 'SIGKILL');

    await assert.rejects(running, (error) => hasCode(error, 'unavailable'));
    await eventually(() => box.processes().length === 0, 20_000);
    const later = await eventually(() => box.shell('echo again').catch(() => undefined));
    assert.equal(later.output, 'again\n');
    await box.remove();
  });

  test('a daemon ends the commands of the one that was killed, at whatever moment', async (t) => {
    const seed = Number(process.env['TSSWARM_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    t.diagnostic(`TSSWARM_TEST_SEED=${seed}`);
    const chance = seededChance(seed);
    const options = engineOptions({ runtime });
    let engine = await openEngine(options);
    try {
      await importDemoImage(engine);
      for (const command of [['sleep', '1000'], ['yes'], ['true'], ['true'], ['true'], ['true']]) {
        const box = aContainer();
        await engine[Symbol.asyncDispose]();
        const child = await spawnEngine(options, [box], command);
        await delay(chance() * 80);
        await killHard(child);

        engine = await openEngine(options);

        const { status } = (await engine.containers.inspect(box.id)) ?? {};
        assert.ok(status?.state === 'running' && status.pid > 0, JSON.stringify(status));
        assert.deepEqual(processesBeside(status.pid), []);
        assert.deepEqual(readdirSync(path.join(options.runDir, 'exec')), []);
        const { exitCode } = await engine.containers.exec(box.id, { command: ['true'], timeoutMs: 5_000 });
        assert.equal(exitCode, 0);
      }
    } finally {
      await engine[Symbol.asyncDispose]();
      await endEngine(await openEngine(options), options);
    }
  });
});

/** Processes in a container besides its first one. */
function processesBeside(first: number): number[] {
  const own = cgroupOf(first);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== first)
    .map(Number)
    .filter((pid) => !isZombie(pid) && cgroupOf(pid) === own);
}

function isZombie(pid: number): boolean {
  return /^State:\s+Z/m.test(readIfThere(`/proc/${pid}/status`));
}

function cgroupOf(pid: number): string {
  return readIfThere(`/proc/${pid}/cgroup`);
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // It has ended.
    return '';
  }
}

/** A process of its own with the engine in it, which runs a command in the container. */
async function spawnEngine(
  options: OpenEngineOptions,
  configs: readonly ContainerConfig[],
  command: readonly string[],
): Promise<ChildProcess> {
  const { log: _, ...plain } = options;
  const file = path.join(import.meta.dirname, '../support/engine-child.ts');
  const args = [plain, configs, command].map((argument) => JSON.stringify(argument));
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

async function killHard(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
