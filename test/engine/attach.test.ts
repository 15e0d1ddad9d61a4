// Talking to a container's own process.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { AttachSession, ContainerConfig } from '../../agent/engine/engine.ts';
import { aContainer, collectLogs, onEachRuntime } from '../support/engine.ts';
import { eventually } from '../support/eventually.ts';

onEachRuntime('attaching to containers', (own) => {
  const containers = () => own().engine.containers;
  const start = async (overrides: Partial<ContainerConfig> = {}) => {
    const config = aContainer(overrides);
    await containers().create(config);
    const pid = await containers().start(config.id);
    return { id: config.id, pid, remove: () => containers().remove(config.id) };
  };

  test('what is typed is read, by one after the other and by two at once, and leaving ends nothing', async () => {
    const box = await start({ openStdin: true, args: ['cat'] });

    const first = listen(await containers().attach(box.id));
    await first.session.write(Buffer.from('one\n'));
    await eventually(() => first.text() === 'one\n');
    const second = listen(await containers().attach(box.id));
    await second.session.write(Buffer.from('two\n'));
    await eventually(() => first.text() === 'one\ntwo\n' && second.text() === 'two\n');
    first.session.leave();
    await first.ended;
    await second.session.write(Buffer.from('three\n'));
    await eventually(() => second.text() === 'two\nthree\n');
    second.session.leave();
    const third = listen(await containers().attach(box.id));
    await third.session.write(Buffer.from('four\n'));
    await eventually(() => third.text() === 'four\n');

    assert.deepEqual(
      (await collectLogs(own().engine, box.id)).map(({ line }) => line),
      ['one\n', 'two\n', 'three\n', 'four\n'],
    );
    await box.remove();
    assert.equal(await third.session.exited, 137);
  });

  test('a terminal shows what has no end of line yet, has a size, and outlives the engine', async () => {
    const box = await start({ openStdin: true, tty: true, args: ['sh'] });
    const before = listen(await containers().attach(box.id));
    assert.deepEqual([before.session.tty, before.session.stdin], [true, true]);
    await before.session.resize({ columns: 77, rows: 22 });
    await before.session.write(Buffer.from('stty size\r'));
    await eventually(() => /22 77\r\n.*# /s.test(before.text()));

    await own().reopen();
    await before.ended;

    const after = listen(await containers().attach(box.id));
    await after.session.write(Buffer.from('echo $((6*7)); exit 5\r'));
    assert.equal(await after.session.exited, 5);
    await after.ended;
    assert.match(after.text(), /42\r\n/);
    await box.remove();
  });

  test('without a standard input there is output, and the shim has nothing to read', async () => {
    const box = await start({
      args: ['sh', '-c', 'cat; echo read all; trap "echo heard; exit 3" USR1; sleep 1000 & wait'],
    });
    await eventually(async () => (await collectLogs(own().engine, box.id)).length === 1);
    const session = listen(await containers().attach(box.id));
    assert.equal(session.session.stdin, false);

    await session.session.write(Buffer.from('nobody reads this'));
    await session.session.signal('SIGUSR1');

    assert.equal(await session.session.exited, 3);
    await session.ended;
    assert.equal(session.text(), 'heard\n');
    await assert.rejects(containers().attach(box.id), { code: 'failed-precondition' });
    await box.remove();
  });

  test('nothing is left that kept the standard input open', async () => {
    const box = await start({ openStdin: true, args: ['cat'] });
    await eventually(() => keepersOf(box.pid).length === 1);

    await box.remove();

    await eventually(() => keepersOf(box.pid).length === 0, 15_000);
  });
});

/** Collects what a session says. */
function listen(session: AttachSession) {
  let text = '';
  const ended = (async () => {
    for await (const { data } of session.output) text += Buffer.from(data).toString();
  })();
  return { session, ended, text: () => text };
}

function keepersOf(pid: number): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').startsWith(`tail\0--pid=${pid}\0`);
    } catch {
      // It has ended while we looked.
      return false;
    }
  });
}
