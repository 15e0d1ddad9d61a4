// Commands that somebody talks to, beside the process of a running container.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import type { ContainerConfig, ExecSession, ExecSessionRequest } from '../../agent/engine/engine.ts';
import { hasCode } from '../../core/errors.ts';
import { aContainer, onEachRuntime } from '../support/engine.ts';
import { eventually } from '../support/eventually.ts';

const MIB = 2 ** 20;
const plain = { env: [], workdir: '', user: '', privileged: false, tty: false, stdin: false };

onEachRuntime('sessions of commands', (own) => {
  const containers = () => own().engine.containers;

  const start = async (overrides: Partial<ContainerConfig> = {}) => {
    const config = aContainer(overrides);
    await containers().create(config);
    await containers().start(config.id);
    const shell = (script: string, options: Partial<ExecSessionRequest> = {}) =>
      containers().openExec(config.id, { ...plain, command: ['sh', '-c', script], ...options });
    return { id: config.id, shell, remove: () => containers().remove(config.id) };
  };
  const fifos = () => readdirSync(path.join(own().options.runDir, 'exec'));

  test('both streams arrive apart, with the exit code, and leave nothing behind', async () => {
    const box = await start();

    const result = await finish(await box.shell('echo out; echo err >&2; exit 7'));

    assert.deepEqual(result, { exitCode: 7, stdout: 'out\n', stderr: 'err\n' });
    await eventually(() => fifos().length === 0);
    await box.remove();
  });

  test('what goes in comes out byte by byte, and the end of input arrives', async () => {
    const box = await start();
    const sent = randomBytes(3 * MIB + 17);
    const session = await box.shell('exec cat', { stdin: true });
    const hash = createHash('sha256');

    const writing = (async () => {
      for (let at = 0; at < sent.length; at += 32_768) await session.write(sent.subarray(at, at + 32_768));
      await session.endInput();
    })();
    for await (const { data } of session.output) hash.update(data);
    await writing;

    assert.equal(await session.exited, 0);
    assert.equal(hash.digest('hex'), createHash('sha256').update(sent).digest('hex'));
    await box.remove();
  });

  test('a command of which nobody reads the output waits, and then goes on', async () => {
    const box = await start();
    const session = await box.shell('dd if=/dev/zero bs=1024 count=8192 2>/dev/null; echo end >&2');
    const before = process.memoryUsage().rss;
    const reading = session.output[Symbol.asyncIterator]();
    const first = await reading.next();

    const isOver = await Promise.race([
      session.exited.then(() => true),
      new Promise((resolve) => setTimeout(() => resolve(false), 1_000)),
    ]);
    let bytes = 0;
    for (let next = first; !next.done; next = await reading.next()) bytes += next.value.data.length;

    assert.equal(isOver, false, 'it wrote 8 MiB to nobody');
    assert.equal(bytes, 8 * MIB + 'end\n'.length);
    assert.ok(process.memoryUsage().rss - before < 64 * MIB);
    await box.remove();
  });

  test('a terminal has a size that changes, and hears what is typed', async () => {
    const box = await start();
    const size = { columns: 111, rows: 33 };
    const session = await box.shell(
      'until stty size 2>/dev/null; do sleep 0.02; done; read line; stty size; tty; echo "got $line"; exit 3',
      {
        tty: true,
        stdin: true,
        size,
      },
    );
    const reading = finish(session);

    await session.resize({ columns: 77, rows: 22 });
    await session.write(Buffer.from('hello\r'));
    const { stdout, exitCode } = await reading;

    // What is typed is shown when it comes, be it before the command has begun.
    assert.match(stdout, /^(hello\r\n)?(33 111|22 77)\r\n/);
    assert.match(stdout, /22 77\r\n\/dev\/(pts\/\d+|console)\r\ngot hello\r\n$/);
    assert.equal(exitCode, 3);
    await box.remove();
  });

  test('what is typed at a terminal interrupts, and signals reach a command without one', async () => {
    const box = await start();
    const typed = await box.shell(
      'trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.05; done',
      {
        tty: true,
        stdin: true,
      },
    );
    const told = await box.shell('trap "echo caught; exit 6" TERM; echo ready; while :; do sleep 0.05; done');

    const [first, second] = await Promise.all([
      finish(typed, async (text) => {
        if (text.endsWith('ready\r\n')) await typed.write(Buffer.from([3]));
      }),
      finish(told, async (text) => {
        if (text.endsWith('ready\n')) await told.signal('SIGTERM');
      }),
    ]);

    assert.match(first.stdout, /caught/);
    assert.equal(first.exitCode, 5);
    assert.equal(second.stdout, 'ready\ncaught\n');
    assert.equal(second.exitCode, 6);
    await box.remove();
  });

  test('a command gets the user, directory, variables and rights that are asked for', async () => {
    const box = await start({ env: ['COLOUR=red', 'SHAPE=round'] });
    const look = 'id -u; pwd; echo $COLOUR $SHAPE; grep CapEff /proc/self/status';

    const web = await finish(await box.shell(look, { user: 'web', workdir: '/tmp', env: ['COLOUR=blue'] }));
    const all = await finish(await box.shell('grep CapEff /proc/self/status', { privileged: true }));

    assert.equal(web.stdout, '1000\n/tmp\nblue round\nCapEff:\t0000000000000000\n');
    assert.ok(Number.parseInt(all.stdout.split('\t')[1] ?? '', 16) > 0xa80425fb, all.stdout);
    await assert.rejects(box.shell('true', { user: 'nobody-knows' }), (error) =>
      hasCode(error, 'invalid-argument'),
    );
    await box.remove();
  });

  test('a session that is killed takes along what it has started', async () => {
    const box = await start();
    const session = await box.shell('sleep 1000 & echo ready; wait');

    const { exitCode } = await finish(session, async () => session.kill());

    assert.equal(exitCode, 137);
    await box.remove();
  });

  test('what a command leaves running does not hold up its end', async () => {
    const box = await start();

    const { exitCode, stdout } = await finish(await box.shell('sleep 1000 & echo done; exit 4'));

    assert.deepEqual([exitCode, stdout], [4, 'done\n']);
    await box.remove();
  });

  test('the next engine ends what nobody talks to any more', async () => {
    const box = await start();
    const session = await box.shell('echo ready; exec sleep 1000', { stdin: true });
    void finish(session).catch(() => {});
    await eventually(() => fifos().length === 3);

    await own().reopen();

    await eventually(() => fifos().length === 0);
    const { output } = await containers().exec(box.id, { command: ['ps'], timeoutMs: 20_000 });
    assert.equal(output.match(/sleep 1000\n/g)?.length, 1, output);
    await box.remove();
  });

  test('a program that is missing is refused with the code a shell gives', async () => {
    const box = await start();

    await assert.rejects(
      containers().openExec(box.id, { ...plain, command: ['no-such-program'] }),
      (error) => hasCode(error, 'invalid-argument') && /127/.test(error.hint ?? ''),
    );

    await eventually(() => fifos().length === 0);
    await box.remove();
  });
});

/** Reads a session to its end; `hear` is told all of stdout each time that some comes. */
async function finish(
  session: ExecSession,
  hear: (stdout: string) => Promise<void> = async () => {},
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const text = { stdout: '', stderr: '' };
  for await (const { stream, data } of session.output) {
    text[stream] += Buffer.from(data).toString();
    if (stream === 'stdout') await hear(text.stdout);
  }
  return { exitCode: await session.exited, ...text };
}
