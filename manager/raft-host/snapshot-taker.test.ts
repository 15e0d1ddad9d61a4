import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptySnapshotMark } from '../../proto/generated/raft.ts';
import { SnapshotTaker } from './snapshot-taker.ts';

const MB = 2 ** 20;

/** Entries of a megabyte each; a snapshot has as many bytes as it is told. */
class Play {
  readonly taker: SnapshotTaker;
  readonly snapshots: number[] = [];
  #index = 0;

  constructor({ random = 0, interval = 10_000, stateBytes = 0 }) {
    this.taker = new SnapshotTaker({
      disk: {
        writeSnapshot: async ({ index }) => {
          this.snapshots.push(index);
          return stateBytes;
        },
        compact: async () => {},
      },
      interval: () => interval,
      capture: () => ({ mark: { ...emptySnapshotMark, index: this.#index }, records: [] }),
      onCompacted: () => {},
      defer: setImmediate,
      random: () => random,
      signal: new AbortController().signal,
    });
  }

  async apply(entries: number): Promise<readonly number[]> {
    for (let count = 0; count < entries; count++) {
      this.taker.applied(++this.#index, MB);
      await this.taker.settled();
    }
    return this.snapshots;
  }
}

test('a snapshot is due after as many entries as the interval says', async () => {
  assert.deepEqual(await new Play({ interval: 40 }).apply(100), [40, 80]);
});

test('a log of big entries has one sooner', async () => {
  assert.deepEqual(await new Play({}).apply(300), [128, 256]);
});

test('of a big state no more is written than the log has grown', async () => {
  assert.deepEqual(await new Play({ stateBytes: 200 * MB }).apply(600), [128, 328, 528]);
});

test('members that apply the same take theirs at different times', async () => {
  const [one, other] = await Promise.all([
    new Play({ random: 0.5 }).apply(130),
    new Play({ random: 0.99 }).apply(130),
  ]);
  assert.deepEqual([one, other], [[112], [97]]);
});
