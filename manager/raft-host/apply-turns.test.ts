import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { newLoneRaft } from '../../test/support/lone-raft.ts';
import type { StateMachine } from '../store/replicated-log.ts';

const ENTRIES = 40;
const ENTRY_BYTES = 20 * 1024;

/** Notes in which turn of the event loop each of its entries was applied. */
class Turns implements StateMachine, AsyncDisposable {
  readonly applied: { readonly turn: number; readonly entry: number }[] = [];
  #turn = 0;
  #next = setImmediate(() => this.#count());

  #count(): void {
    this.#turn++;
    this.#next = setImmediate(() => this.#count());
  }

  apply(index: number, payload: Uint8Array) {
    this.applied.push({ turn: this.#turn, entry: payload[0] ?? -1 });
    return { applied: true as const, index };
  }

  snapshot(): Iterable<Uint8Array> {
    return [];
  }

  async restore(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    clearImmediate(this.#next);
  }
}

test('what is committed at once is applied in order, a little in each turn of the event loop', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'tsswarm-turns-'));
  t.after(() => rm(directory, { recursive: true }));
  await using host = await newLoneRaft(directory, 1_000_000);
  await using machine = new Turns();
  await host.open(machine as never);
  const payloads = Array.from({ length: ENTRIES }, (_, entry) => new Uint8Array(ENTRY_BYTES).fill(entry));

  await Promise.all(payloads.map((payload) => host.propose(payload)));

  assert.deepEqual(
    machine.applied.map(({ entry }) => entry),
    payloads.map((_, entry) => entry),
  );
  const turns = [...Map.groupBy(machine.applied, ({ turn }) => turn).values()];
  const sizes = turns.map(({ length }) => length * ENTRY_BYTES);
  // 32 KiB, a sixteenth of the 40 entries more for each of them, and an entry that does not fit.
  assert.ok(Math.max(...sizes) <= 32 * 1024 * (1 + ENTRIES / 16) + ENTRY_BYTES, `bytes by turn: ${sizes}`);
  assert.ok(sizes.length > 3, `bytes by turn: ${sizes}`);
});

test('a member that starts has applied all that it knows to be committed', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'tsswarm-turns-'));
  t.after(() => rm(directory, { recursive: true }));
  {
    await using host = await newLoneRaft(directory, 1_000_000);
    await using machine = new Turns();
    await host.open(machine as never);
    for (let entry = 0; entry < ENTRIES; entry++) await host.propose(new Uint8Array(ENTRY_BYTES).fill(entry));
  }
  await using host = await newLoneRaft(directory, 1_000_000);
  await using machine = new Turns();
  await host.open(machine as never);

  assert.equal(machine.applied.length, ENTRIES);
});
