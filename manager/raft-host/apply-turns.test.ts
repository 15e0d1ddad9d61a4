import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { EventLoopTurns } from '../../test/support/event-loop-turns.ts';
import { newLoneRaft } from '../../test/support/lone-raft.ts';
import type { ObjectStateMachine } from '../store/replicated-log.ts';

const ENTRIES = 40;
const ENTRY_BYTES = 20 * 1024;

/** A member that is alone, and in which turn of the event loop each of its entries was applied. */
async function opened(directory: string) {
  await using scope = new AsyncDisposableStack();
  const turns = scope.use(new EventLoopTurns());
  const host = scope.use(await newLoneRaft(directory, 1_000_000));
  const applied: { readonly turn: number; readonly entry: number }[] = [];
  const machine: ObjectStateMachine = {
    apply: (index, payload) => {
      applied.push({ turn: turns.current, entry: payload[0] ?? -1 });
      return { applied: true, index };
    },
    snapshot: () => [],
    restore: () => assert.fail('there is no snapshot'),
    rehearse: () => assert.fail('only etcd asks for it'),
  };
  await host.open(machine);
  const kept = scope.move();
  return { host, applied, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

const payloads = Array.from({ length: ENTRIES }, (_, entry) => new Uint8Array(ENTRY_BYTES).fill(entry));

async function withDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tsswarm-turns-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

test('what is committed at once is applied in order, a little in each turn of the event loop', async (t) => {
  await using member = await opened(await withDirectory(t));
  const { host, applied } = member;

  await Promise.all(payloads.map((payload) => host.propose(payload)));

  assert.deepEqual(
    applied.map(({ entry }) => entry),
    payloads.map((_, entry) => entry),
  );
  const turns = [...Map.groupBy(applied, ({ turn }) => turn).values()];
  const sizes = turns.map(({ length }) => length * ENTRY_BYTES);
  // 32 KiB, a sixteenth of the 40 entries more for each of them, and an entry that does not fit.
  assert.ok(Math.max(...sizes) <= 32 * 1024 * (1 + ENTRIES / 16) + ENTRY_BYTES, `bytes by turn: ${sizes}`);
  assert.ok(sizes.length > 3, `bytes by turn: ${sizes}`);
});

test('a member that starts has applied all that it knows to be committed', async (t) => {
  const directory = await withDirectory(t);
  {
    await using member = await opened(directory);
    for (const payload of payloads) await member.host.propose(payload);
  }

  await using member = await opened(directory);

  assert.equal(member.applied.length, ENTRIES);
});
