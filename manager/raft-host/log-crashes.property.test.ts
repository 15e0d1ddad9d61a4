import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../core/errors.ts';
import type { Entry, HardState } from '../../proto/generated/raft.ts';
import { emptyHardState } from '../../proto/generated/raft.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { type CrashKind, SimDisk } from '../../test/sim/sim-disk.ts';
import { seededChance } from '../../test/support/faults.ts';
import {
  aMark,
  anEntry,
  aState,
  logOptions,
  MEMBER,
  openLog,
  recordsOf,
  seededBytes,
  testSeed,
  textOf,
} from '../../test/support/raft-log.ts';
import { LogOnDisk, type LogOptions } from './log-on-disk.ts';

setLogLevel('silent');

const RUNS = 400;

type Step =
  | { readonly kind: 'append'; readonly count: number; readonly back: number; readonly bytes: number }
  | { readonly kind: 'hard-state' }
  | { readonly kind: 'wait' }
  | { readonly kind: 'snapshot'; readonly behind: number }
  | { readonly kind: 'compact'; readonly behind: number }
  | { readonly kind: 'receive'; readonly ahead: number }
  | { readonly kind: 'rotate' }
  /** How much room there is from here on; Infinity for enough. */
  | { readonly kind: 'room'; readonly bytes: number }
  | { readonly kind: 'crash'; readonly calls: number; readonly crash: CrashKind; readonly again: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant('append' as const),
      count: fc.integer({ min: 1, max: 8 }),
      back: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 6 })),
      bytes: fc.oneof(fc.integer({ min: 0, max: 900 }), fc.constant(6000)),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'hard-state' as const }) },
  { weight: 4, arbitrary: fc.constant({ kind: 'wait' as const }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('snapshot' as const), behind: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('compact' as const), behind: fc.nat(5) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('receive' as const), ahead: fc.integer({ min: -3, max: 5 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'rotate' as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('room' as const),
      bytes: fc.oneof(fc.nat(30_000), fc.constant(Number.POSITIVE_INFINITY)),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('crash' as const),
      calls: fc.integer({ min: 1, max: 30 }),
      crash: fc.constantFrom('power' as const, 'process' as const),
      again: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 25 })),
    }),
  },
);

/** What the member has been told to remember. `entries[i]` has index i + 1; snapshots of peers leave holes. */
interface Memory {
  readonly entries: readonly (Entry | undefined)[];
  readonly hardState: HardState;
}

interface Mark {
  readonly index: number;
  readonly term: number;
  /** A peer's snapshot: what was before it is gone with it. */
  readonly since?: Memory;
}

/** A log, and all the states that its disk may be in: the last acknowledged one and those after it. */
class World {
  disk: SimDisk;
  log: LogOnDisk | undefined;
  #states: Memory[] = [{ entries: [], hardState: emptyHardState }];
  /** Indexes of snapshots that may be the newest, with their terms. */
  #marks: Mark[] = [{ index: 0, term: 0 }];
  #term = 1;
  /** What was refused has to come again before anything after it. */
  #refusedFrom = Number.POSITIVE_INFINITY;
  #outstanding: Promise<unknown>[] = [];
  readonly #randomBytes: (size: number) => Buffer;

  readonly #change: Partial<LogOptions>;

  constructor(seed: number, change: Partial<LogOptions>) {
    this.#change = change;
    this.disk = new SimDisk({ chance: seededChance(seed) });
    this.#randomBytes = seededBytes(seededChance(seed + 1));
  }

  async run(steps: readonly Step[]): Promise<void> {
    await this.#start();
    let armed: Extract<Step, { kind: 'crash' }> | undefined;
    for (const next of steps) {
      if (next.kind === 'crash') {
        armed = next;
        this.disk.stopAt = this.disk.calls + next.calls;
        continue;
      }
      await this.#orStop(this.#take(next));
      if (this.disk.isDead && armed !== undefined) await this.#crash(armed);
    }
    await this.#orStop(this.#wait());
    await this.#crash({ kind: 'crash', calls: 0, crash: 'power', again: 0 });
    await this.#orStop(this.#wait());
  }

  get #now(): Memory {
    return this.#states.at(-1) as Memory;
  }

  async #orStop(work: Promise<unknown>): Promise<void> {
    await Promise.race([work, this.disk.stopped]);
  }

  async #take(next: Exclude<Step, { kind: 'crash' }>): Promise<void> {
    const log = this.log as LogOnDisk;
    const last = this.#now.entries.length;
    const newest = this.#marks.at(-1) as Mark;
    switch (next.kind) {
      case 'append':
        return this.#append(next);
      case 'hard-state':
        return this.#remember({ ...this.#now, hardState: aState(this.#term, newest.index, 1) }, (state) =>
          log.append({ hardState: state.hardState, entries: [] }),
        );
      case 'wait':
        return this.#wait();
      case 'snapshot': {
        await this.#wait();
        const index = last - next.behind;
        // What a refused entry replaces was never committed.
        if (index <= newest.index || index >= this.#refusedFrom) return;
        const mark = aMark(index, this.#now.entries[index - 1]?.term ?? newest.term);
        this.#marks.push(mark);
        if (await this.#hasRoom(log.writeSnapshot(mark, this.#records(index))))
          this.#marks = this.#marks.slice(-1);
        else this.#marks.pop();
        return;
      }
      case 'compact':
        return log.compact(Math.max(0, newest.index - next.behind));
      case 'receive':
        return this.#receive(Math.max(newest.index + 1, last + next.ahead));
      case 'rotate':
        await this.#hasRoom(log.rotateKey());
        return;
      case 'room':
        await this.#wait();
        this.disk.capacityBytes = this.disk.usedBytes + next.bytes;
        if (next.bytes === Number.POSITIVE_INFINITY) await log.reviewSpace();
        return;
    }
  }

  /** False when there was no room for it. */
  async #hasRoom(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch (error) {
      if (!hasCode(error, 'resource-exhausted')) throw error;
      assert.ok(this.disk.capacityBytes < Number.POSITIVE_INFINITY, 'refused with plenty of room');
      return false;
    }
  }

  async #append({ count, back, bytes }: Extract<Step, { kind: 'append' }>): Promise<void> {
    const newest = this.#marks.at(-1)?.index ?? 0;
    const kept = Math.max(newest, Math.min(this.#now.entries.length - back, this.#refusedFrom - 1));
    if (kept < this.#now.entries.length) this.#term++;
    const term = this.#term;
    const entries = Array.from({ length: count }, (_, offset) =>
      anEntry(kept + 1 + offset, term, `${kept + 1 + offset}/${term} ${'x'.repeat(bytes)}`),
    );
    const isWithState = count % 2 === 0;
    const hardState = isWithState ? aState(term, newest, 2) : this.#now.hardState;
    await this.#remember({ entries: [...this.#now.entries.slice(0, kept), ...entries], hardState }, () =>
      (this.log as LogOnDisk).append(isWithState ? { hardState, entries } : { entries }),
    );
    if (this.disk.capacityBytes === Number.POSITIVE_INFINITY) this.#refusedFrom = Number.POSITIVE_INFINITY;
    else this.#refusedFrom = this.#now.entries.includes(entries[0]) ? Number.POSITIVE_INFINITY : kept + 1;
  }

  async #receive(index: number): Promise<void> {
    const log = this.log as LogOnDisk;
    await this.#wait();
    const mark = aMark(index, ++this.#term);
    const source = new SimDisk({ chance: seededChance(1) });
    const peer = await LogOnDisk.create(logOptions(source), MEMBER);
    await peer.append({ entries: Array.from({ length: index }, (_, at) => anEntry(at + 1, mark.term)) });
    await peer.writeSnapshot(mark, this.#records(index));
    const snapshot = await peer.openSnapshot();
    assert.ok(snapshot);
    const [states, marks] = [this.#states, this.#marks];
    const install = async () => {
      const receiver = await log.receiveSnapshot(mark, snapshot.rootHash);
      for await (const chunk of snapshot.records()) await receiver.write(chunk);
      const since = { entries: Array(index).fill(undefined), hardState: this.#now.hardState };
      this.#states = [...states, since];
      this.#marks = [...marks, { ...mark, since }];
      await receiver.finish();
    };
    const isInstalled = await this.#hasRoom(install());
    if (isInstalled) this.#refusedFrom = Number.POSITIVE_INFINITY;
    this.#states = isInstalled ? this.#states.slice(-1) : states;
    this.#marks = isInstalled ? this.#marks.slice(-1) : marks;
  }

  *#records(index: number): Iterable<Buffer> {
    for (let at = 1; at <= 20; at++) yield Buffer.from(`record ${at} of ${index} ${'y'.repeat(50)}`);
  }

  /** The state may be this one from now on, and has to be when `write` was acknowledged. */
  #remember(state: Memory, write: (state: Memory) => Promise<void>): Promise<void> {
    this.#states.push(state);
    this.#outstanding.push(
      this.#hasRoom(write(state)).then((isWritten) => {
        const position = this.#states.indexOf(state);
        if (isWritten) this.#states = this.#states.slice(position);
        else if (position >= 0) this.#states = this.#states.slice(0, position);
      }),
    );
    // Whoever does not wait would not know what to build on.
    return this.disk.capacityBytes < Number.POSITIVE_INFINITY ? this.#wait() : Promise.resolve();
  }

  async #wait(): Promise<void> {
    await Promise.all(this.#outstanding);
    this.#outstanding = [];
  }

  async #crash({ crash, again }: Extract<Step, { kind: 'crash' }>): Promise<void> {
    this.disk = this.disk.crash(crash);
    this.#outstanding = [];
    if (again > 0) {
      this.disk.stopAt = again;
      await this.#orStop(this.#start());
      if (this.disk.isDead) this.disk = this.disk.crash(crash === 'power' ? 'process' : 'power');
      else return;
    }
    await this.#start();
  }

  async #start(): Promise<void> {
    const options = logOptions(this.disk, { randomBytes: this.#randomBytes, ...this.#change });
    const opened = await LogOnDisk.open(options).catch((error) => {
      assert.ok(
        hasCode(error, 'resource-exhausted') && this.disk.capacityBytes < Number.POSITIVE_INFINITY,
        error,
      );
      this.disk.capacityBytes = Number.POSITIVE_INFINITY;
      return LogOnDisk.open(options);
    });
    if (opened === undefined) {
      assert.deepEqual(this.#states[0]?.entries, [], 'acknowledged entries are gone with the whole log');
      this.log = await LogOnDisk.create(options, MEMBER);
      return;
    }
    this.log = opened.log;
    this.#refusedFrom = Number.POSITIVE_INFINITY;
    const { recovered } = opened;
    const mark = this.#marks.find(({ index }) => index === (recovered.snapshot?.index ?? 0));
    assert.ok(
      mark,
      `snapshot of ${recovered.snapshot?.index}, none of ${this.#marks.map(({ index }) => index)}`,
    );
    assert.equal(recovered.snapshot?.term ?? 0, mark.term);
    const found = this.#states.findLastIndex((state) => isState(state, mark.index, recovered));
    const first = mark.since === undefined ? 0 : this.#states.indexOf(mark.since);
    assert.ok(
      found >= Math.max(first, 0),
      `recovered ${textOf(recovered.entries).map((text) => text.slice(0, 12))} ${JSON.stringify(recovered.hardState)} after ${mark.index}`,
    );
    this.#states = [this.#states[found] as Memory];
    this.#marks = [mark];
    if (mark.index > 0)
      assert.deepEqual(
        await recordsOf(await opened.log.openSnapshot()),
        [...this.#records(mark.index)].map((record) => record.toString()),
      );
  }
}

function isState(
  state: Memory,
  after: number,
  recovered: { entries: readonly Entry[]; hardState: HardState },
): boolean {
  const commit = Math.max(state.hardState.commit, after);
  const { hardState } = recovered;
  const isHard =
    hardState.term === state.hardState.term &&
    hardState.vote === state.hardState.vote &&
    hardState.commit === commit;
  const expected = state.entries.slice(after);
  if (!isHard || expected.includes(undefined) || expected.length !== recovered.entries.length) return false;
  return textOf(expected as Entry[]).join() === textOf(recovered.entries).join();
}

test('what was acknowledged survives any sequence of writes, snapshots and crashes', {
  timeout: 150_000,
}, async (t) => {
  const seed = testSeed();
  t.diagnostic(`TSSWARM_TEST_SEED=${seed}`);
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 5, maxLength: 60 }),
      fc.nat(),
      fc.constantFrom(0, 3000, 2 ** 20),
      async (steps, diskSeed, copyBytesMax) => {
        await new World(diskSeed, { copyBytesMax }).run(steps);
      },
    ),
    { seed, numRuns: Number(process.env['TSSWARM_TEST_STEPS'] ?? RUNS) },
  );
});

test('what one start has recovered, the next one recovers, whatever the page cache hid', async () => {
  let seen = 0;
  for (const copyBytesMax of [0, 2 ** 20])
    for (const isFull of [false, true])
      for (let calls = 1; calls <= 70; calls++)
        for (let seed = 1; seed <= 6; seed++) {
          const disk = new SimDisk({ chance: seededChance(seed * 100 + calls) });
          const log = await LogOnDisk.create(logOptions(disk), MEMBER);
          await log.append({ entries: [anEntry(1), anEntry(2)] });
          disk.fault = ({ kind, name, number }) => {
            if (kind === 'write-at' && name === 'spare-1.tmp') disk.stopAt = number;
            return undefined;
          };
          await Promise.race([log.append({ entries: [anEntry(3)] }), disk.stopped]);

          const first = disk.crash('process');
          if (isFull) first.capacityBytes = 0;
          first.stopAt = calls;
          const opening = openLog(first, { copyBytesMax });
          const opened = await Promise.race([opening, first.stopped]);
          const second = first.crash('power');
          second.capacityBytes = Number.POSITIVE_INFINITY;
          const { recovered } = await openLog(second, { copyBytesMax });

          const known = textOf(recovered.entries);
          assert.deepEqual(known.slice(0, 2), textOf([anEntry(1), anEntry(2)]));
          if (opened?.recovered.entries.length === 3) seen++;
          if (opened !== undefined) assert.deepEqual(known, textOf(opened.recovered.entries), `seed ${seed}`);
        }
  assert.ok(seen > 20, `the cache showed the entry ${seen} times`);
});
