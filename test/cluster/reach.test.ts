// What operators do inside tasks, asked of any manager, by the built command line; the tasks run on a worker.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { statusKib } from '../support/process-status.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { type RealNode, whyNoRealNode } from '../support/real-node.ts';
import { IDLE } from '../support/services.ts';

const image = 'localhost/rch:1';
const CLI = path.join(import.meta.dirname, '..', '..', 'dist', 'bin', 'tsswarm');
const WORKER = 2;

describe('reach into tasks', { skip: whyNoRealNode() ?? false }, () => {
  let cluster: RealCluster;

  before(async () => {
    cluster = await RealCluster.start('rch', 3);
    await cluster.init();
    await cluster.join(1, 'manager');
    await cluster.join(WORKER, 'worker');
    await cluster.node(WORKER).importImage((await buildDemoImage({ name: image })).archive);
    const created = await cluster
      .node(0)
      .cli(
        ...['service', 'create', '--name', 'web', '--no-resolve-image'],
        ...['--update-monitor', '100ms', '--replicas', '2'],
        ...['--constraint', 'node.role==worker', '--env', 'COLOUR=red', image, 'sh', '-c', IDLE],
      );
    assert.equal(created.code, 0, created.stderr);
  });
  after(async () => {
    for (const { process } of children) process.kill('SIGKILL');
    await cluster?.[Symbol.asyncDispose]();
  });

  const children: Started[] = [];
  const start = (position: number, program: string, args: readonly string[]) => {
    const child = startAt(cluster.node(position), program, args);
    children.push(child);
    return child;
  };
  /** The command line as a process whose ends the test holds. */
  const open = (position: number, ...args: readonly string[]) => start(position, CLI, args);
  /** The same at a terminal. */
  const atTerminal = (position: number, ...args: readonly string[]) =>
    start(position, 'script', ['-qefc', [CLI, ...args].join(' '), '/dev/null']);
  const fifos = () => readdir(path.join(cluster.node(WORKER).runDir, 'exec'));

  for (const [position, who] of [
    [0, 'the leader'],
    [1, 'a manager that follows'],
  ] as const) {
    test(`a command asked of ${who} runs on the worker and tells its exit code`, async () => {
      const { code, stdout, stderr } = await cluster
        .node(position)
        .cli(
          'exec',
          '-e',
          'SHAPE=round',
          '-w',
          '/tmp',
          'web.1',
          'sh',
          '-c',
          'echo $COLOUR $SHAPE; pwd; echo bad >&2; exit 42',
        );

      assert.deepEqual({ code, stdout, stderr }, { code: 42, stdout: 'red round\n/tmp\n', stderr: 'bad\n' });
    });

    test(`bytes go through ${who} both ways unchanged`, async () => {
      const sent = randomBytes(5_000_003);
      const child = open(position, 'exec', '-i', 'web.2', 'cat');
      child.process.stdin?.end(sent);

      assert.equal(await child.code, 0, child.text());
      assert.equal(sha(child.bytes()), sha(sent));
    });
  }

  test('a terminal has its size, and what is typed is heard', async () => {
    const child = atTerminal(1, 'exec', '-it', 'web.1', 'sh');
    await eventually(() => /[#$] /.test(child.text()));

    child.process.stdin?.write('stty size; echo to-$((40+2)); exit 9\r');

    assert.equal(await child.code, 9, child.text());
    assert.match(child.text(), /to-42/);
  });

  test('the detach keys leave a command running', async () => {
    const child = atTerminal(0, 'exec', '-it', 'web.1', 'sh', '-c', "'echo up; exec sleep 4321'");
    await eventually(() => /up/.test(child.text()));

    child.process.stdin?.write('\x10\x11');

    assert.equal(await child.code, 0, child.text());
    assert.match(child.text(), /read escape sequence/);
    const { stdout } = await cluster.node(0).cli('exec', 'web.1', 'ps');
    assert.match(stdout, /sleep 4321/);
    const pid = /^ *(\d+) .*sleep 4321/m.exec(stdout)?.[1] ?? '';
    await cluster.node(0).cli('exec', 'web.1', 'sh', '-c', `kill -9 ${pid}`);
    await eventually(async () => (await fifos()).length === 0);
  });

  test('signals reach the command, and one that is cut off is ended with what it has started', async () => {
    const told = open(
      1,
      'exec',
      'web.1',
      'sh',
      '-c',
      'trap "echo caught; exit 6" TERM; echo up; while :; do sleep 0.05; done',
    );
    await eventually(() => /up/.test(told.text()));
    told.process.kill('SIGTERM');
    assert.equal(await told.code, 6, told.text());

    const cut = open(1, 'exec', 'web.1', 'sh', '-c', 'echo up; sleep 4322');
    await eventually(() => /up/.test(cut.text()));
    cut.process.kill('SIGKILL');

    await eventually(async () => {
      const { stdout } = await cluster.node(0).cli('exec', 'web.1', 'ps');
      return !/sleep 4322/.test(stdout);
    });
  });

  test('a detached command goes on, a missing one is 127, a task that is not there is told', async () => {
    const detached = await cluster.node(1).cli('exec', '-d', 'web.2', 'sh', '-c', 'sleep 1; touch /tmp/done');
    assert.deepEqual(detached, { code: 0, stdout: '', stderr: '' });
    await eventually(
      async () => (await cluster.node(0).cli('exec', 'web.2', 'test', '-e', '/tmp/done')).code === 0,
    );

    const missing = await cluster.node(1).cli('exec', 'web.1', 'no-such-program');
    assert.equal(missing.code, 127);
    assert.match(missing.stderr, /executable file not found/);

    for (const [task, message] of [
      ['nothing', /task nothing not found/],
      ['web', /2 running tasks\nName one of them, such as web\.\d/],
      ['web.9', /no task of web\.9 is running/],
    ] as const) {
      const { code, stderr } = await cluster.node(1).cli('exec', task, 'true');
      assert.equal(code, 1);
      assert.match(stderr, message);
    }
  });

  test('an operator who does not read stops the command and grows no daemon', async () => {
    const node = cluster.node(WORKER);
    const before = statusKib(node.daemonPid, 'VmRSS');
    const child = open(1, 'exec', 'web.1', 'sh', '-c', 'dd if=/dev/zero bs=65536 count=1536 2>/dev/null');
    child.pause();
    await eventually(async () => (await fifos()).length > 0);
    let last = -1;
    // Until nothing moves any more.
    await eventually(
      async () => {
        const written = await writtenBytes();
        const isStill = written > 0 && written === last;
        last = written;
        return isStill;
      },
      20_000,
      500,
    );

    const grown = statusKib(node.daemonPid, 'VmRSS') - before;
    child.resume();

    assert.equal(await child.code, 0);
    assert.equal(child.bytes().length, 1536 * 65536);
    assert.ok(last < 64 * 2 ** 20, `${last} bytes were written to an operator who read none`);
    assert.ok(grown < 64 * 1024, `the daemon grew by ${grown} KiB`);
  });

  test('the managers write down who did what', async () => {
    await cluster.node(1).cli('exec', 'web.1', 'sh', '-c', 'exit 21');

    const log = (await cluster.node(0).daemonLog())
      .split('\n')
      .filter((line) => line.includes('manager.audit'));
    const last = JSON.parse(log.at(-1) ?? '{}');
    assert.equal(last['exit.code'], 21);
    assert.deepEqual(last.command, ['sh', '-c', 'exit 21']);
    assert.equal(last['service.name'], 'web');
    assert.equal(last['caller.node.id'], (await cluster.find(1)).id);
    assert.equal(last['caller.uid'], process.getuid?.());
    assert.equal(last['node.id'], (await cluster.find(WORKER)).id);
  });

  test('stats, top and attach show a task of the worker', async () => {
    const stats = await cluster.node(1).cli('stats', '--no-stream', 'web');
    assert.match(
      stats.stdout,
      /^TASK ID +NAME +NODE +CPU % +MEM USAGE \/ LIMIT +MEM % +NET I\/O +BLOCK I\/O +PIDS\n/,
    );
    assert.match(
      stats.stdout,
      /web\.1 +rch\S*-3 +\d+\.\d\d% +[\d.]+[KM]iB \/ [\d.]+GiB +\d+\.\d\d% .* [1-9]\d*\n/,
    );
    assert.match(stats.stdout, /web\.2 /);

    const top = await cluster.node(0).cli('top', 'web.1');
    assert.match(top.stdout, /^UID +PID +PPID +C +STIME +TTY +TIME +CMD\nroot +\d+ +\d+ .*sleep/);

    const attached = open(1, 'attach', 'web.1');
    await eventually(
      async () => {
        await cluster.node(0).cli('exec', 'web.1', 'sh', '-c', 'echo spoken > /proc/1/fd/1');
        return /spoken\n/.test(attached.text());
      },
      20_000,
      300,
    );
    attached.process.kill('SIGINT');
  });

  test('who attaches types into a task, leaves it running, and is there again after its daemon was killed', async () => {
    const created = await cluster
      .node(0)
      .cli(
        ...['service', 'create', '--name', 'talk', '--no-resolve-image'],
        ...['--update-monitor', '100ms', '--interactive', '--tty'],
        ...['--constraint', 'node.role==worker', image, 'sh'],
      );
    assert.equal(created.code, 0, created.stderr);
    const inspected = await cluster.node(0).succeed('service', 'inspect', 'talk');
    assert.equal(JSON.parse(inspected.stdout)[0].Spec.TaskTemplate.ContainerSpec.OpenStdin, true);
    const child = atTerminal(1, 'attach', 'talk.1');
    await eventually(() => {
      child.process.stdin?.write('\r');
      return /# /.test(child.text());
    });
    child.process.stdin?.write('kept=$((40+2)); echo begin-$kept\r');
    await eventually(() => /begin-42/.test(child.text()));

    await cluster.node(WORKER).killDaemon();
    await eventually(() =>
      /the way to the task is lost, the task goes on: attaching again/.test(child.text()),
    );
    await cluster.node(WORKER).startDaemon();
    await eventually(() => /attached again/.test(child.text()), 30_000);
    child.process.stdin?.write('echo again-$kept\r');
    await eventually(() => /again-42/.test(child.text()));
    child.process.stdin?.write('\x10\x11');

    assert.equal(await child.code, 0);
    assert.match(child.text(), /read escape sequence/);
    const { stdout } = await cluster.node(0).succeed('service', 'ps', '-q', 'talk');
    assert.equal(stdout.trim().split('\n').length, 1);
    await cluster.node(0).succeed('service', 'rm', 'talk');
  });

  test('files are copied into a task and out of it', async () => {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'rch-cp-'));
    try {
      const sent = randomBytes(3_000_001);
      await mkdir(path.join(directory, 'a, b'));
      await writeFile(path.join(directory, 'a, b', 'data'), sent);
      const succeed = async (...args: readonly string[]) =>
        (await cluster.node(1).succeed('cp', ...args)).stderr;

      const told = await succeed(path.join(directory, 'a, b'), 'web.1:/tmp/copied');
      await succeed(path.join(directory, 'a, b', 'data'), 'web.1:/tmp');
      await succeed('-q', 'web.1:/tmp/copied', path.join(directory, 'back'));
      await succeed('-q', 'web.1:/tmp/data', directory);

      assert.match(told, /^Successfully copied [\d.]+MB to web\.1:\/tmp\/copied\n$/);
      assert.equal(sha(await readFile(path.join(directory, 'back', 'data'))), sha(sent));
      assert.equal(sha(await readFile(path.join(directory, 'data'))), sha(sent));
      const listed = open(0, 'cp', 'web.1:/tmp/copied/.', '-');
      assert.equal(await listed.code, 0);
      assert.match(listed.bytes().subarray(0, 2_048).toString('latin1'), /^\.\/.*\.\/data/s);
      const wrong = await cluster.node(0).cli('cp', 'web.1:/no/such', directory);
      assert.equal(wrong.code, 1);
      assert.match(wrong.stderr, /can't change directory|No such file/);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test('logs of a task are read from any manager, between two moments', async () => {
    const all = await cluster.node(1).cli('task', 'logs', '--raw', '--timestamps', 'web.1');
    const early = await cluster
      .node(1)
      .cli('task', 'logs', '--raw', '--until', '2020-01-01T00:00:00Z', 'web.1');
    const late = await cluster.node(1).cli('service', 'logs', '--details', '--since', '1h', '-n', '1', 'web');

    assert.match(all.stdout, /^\d{4}-\d\d-\d\dT[\d:.]+Z spoken\n/m);
    assert.equal(early.stdout, '');
    assert.match(late.stdout, /com\.docker\.swarm\.task\.id=\w+ spoken\n$/);
  });

  test('a change of leaders ends a command with a clear error', async () => {
    const child = open(1, 'exec', 'web.1', 'sh', '-c', 'echo up; sleep 4323');
    await eventually(() => /up/.test(child.text()));

    await cluster.node(0).killDaemon();

    assert.equal(await child.code, 1, child.text());
    assert.match(child.text(), /the way to the task is lost, and its command is ended/);
    await cluster.node(0).startDaemon();
    await eventually(async () => {
      const { stdout, code } = await cluster.node(1).cli('exec', 'web.1', 'ps');
      return code === 0 && !/sleep 4323/.test(stdout);
    }, 60_000);
  });

  test('a daemon that was killed ends what was left of commands', async () => {
    const child = open(0, 'exec', 'web.1', 'sh', '-c', 'echo up; sleep 4324');
    await eventually(() => /up/.test(child.text()));

    await cluster.node(WORKER).killDaemon();
    assert.equal(await child.code, 1);
    assert.equal((await fifos()).length, 2);
    await cluster.node(WORKER).startDaemon();

    await eventually(async () => {
      const { stdout, code } = await cluster.node(0).cli('exec', 'web.1', 'ps');
      return code === 0 && !/sleep 4324/.test(stdout);
    }, 60_000);
  });
});

interface Started {
  readonly process: ChildProcess;
  readonly code: Promise<number | null>;
  /** All that it wrote. */
  bytes(): Buffer;
  text(): string;
  pause(): void;
  resume(): void;
}

function startAt(node: RealNode, program: string, args: readonly string[]): Started {
  const env = {
    ...process.env,
    TERM: 'xterm',
    SHELL: '/bin/sh',
    TSSWARM_HOST: `unix://${path.join(node.runDir, 'control.sock')}`,
  };
  const child = spawn(program, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (data: Buffer) => out.push(data));
  child.stderr.on('data', (data: Buffer) => err.push(data));
  child.stdin.on('error', () => {});
  return {
    process: child,
    code: once(child, 'close').then(([code]) => code as number | null),
    bytes: () => Buffer.concat(out),
    text: () => Buffer.concat([...out, ...err]).toString(),
    pause: () => void child.stdout.pause(),
    resume: () => void child.stdout.resume(),
  };
}

function sha(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What the `dd` that runs in a task has written; 0 when there is none. Of a busybox shell it may be a fork. */
async function writtenBytes(): Promise<number> {
  let most = 0;
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (!/^(sh\0-c\0)?dd.if=\/dev\/zero.bs=65536/.test(command)) continue;
    const io = await readFile(`/proc/${pid}/io`, 'utf8').catch(() => '');
    most = Math.max(most, Number(/^wchar: (\d+)/m.exec(io)?.[1] ?? 0));
  }
  return most;
}
