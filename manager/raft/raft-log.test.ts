import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Entry, emptyConfiguration } from '../../proto/generated/raft.ts';
import { RaftLog } from './raft-log.ts';

const PAYLOAD = new Uint8Array(4);
const ENTRY_BYTES = 20;

/** Entries of these terms, from `first` on. */
function entries(first: number, ...terms: number[]): Entry[] {
  return terms.map((term, at) => ({ index: first + at, term, kind: 'normal', payload: PAYLOAD }));
}

/** A log of these terms, all of it durable. */
function aLog(...terms: number[]): RaftLog {
  return new RaftLog({ index: 0, term: 0 }, entries(1, ...terms), 0);
}

function termsOf(log: RaftLog): (number | undefined)[] {
  return Array.from({ length: log.lastIndex - log.firstIndex + 1 }, (_, at) =>
    log.termOf(log.firstIndex + at),
  );
}

test('a log that ends in a younger term, or in the same and is not shorter, is up to date', () => {
  const log = aLog(1, 1, 2);

  assert.deepEqual(
    [
      log.isUpToDate(1, 3),
      log.isUpToDate(3, 2),
      log.isUpToDate(4, 2),
      log.isUpToDate(2, 2),
      log.isUpToDate(9, 1),
    ],
    [true, true, true, false, false],
  );
});

test('entries that are there already are left alone, also what stands after them', () => {
  const log = aLog(1, 1, 2, 2);

  assert.equal(log.accept(1, 1, entries(2, 1)), 2);
  assert.deepEqual(termsOf(log), [1, 1, 2, 2]);
});

test('the first entry that differs takes the rest with it', () => {
  const log = aLog(1, 1, 2, 2, 2);

  assert.equal(log.accept(1, 1, entries(2, 1, 3)), 3);
  assert.deepEqual(termsOf(log), [1, 1, 3]);
  assert.equal(log.stableIndex, 2);
});

test('entries after one that is not here, or another, are refused', () => {
  const log = aLog(1, 1);

  assert.equal(log.accept(3, 1, entries(4, 1)), undefined);
  assert.equal(log.accept(2, 2, entries(3, 2)), undefined);
  assert.deepEqual(termsOf(log), [1, 1]);
});

test('what is committed does not change', () => {
  const log = aLog(1, 1, 1);
  log.commitTo(2);

  assert.throws(() => log.accept(1, 1, entries(2, 2)), { name: 'AssertionError' });
  assert.throws(() => log.commitTo(9), { name: 'AssertionError' });
  log.commitTo(1);
  assert.equal(log.committedIndex, 2);
});

test('where a log may agree with one that has a term at an index', () => {
  const log = aLog(1, 1, 3, 3, 5);

  const agreements = [
    [5, 5],
    [5, 4],
    [4, 2],
    [9, 3],
    [2, 0],
  ].map(([index = 0, term = 0]) => log.findConflict(index, term));

  assert.deepEqual(agreements, [
    { index: 5, term: 5 },
    { index: 4, term: 3 },
    { index: 2, term: 1 },
    { index: 4, term: 3 },
    { index: 0, term: 0 },
  ]);
});

test('a slice has as much as fits, and at least one entry', () => {
  const log = aLog(1, 1, 1, 1);

  const lengths = [1, ENTRY_BYTES, 2 * ENTRY_BYTES, 1000].map((bytes) => log.slice(2, 4, bytes)?.length);

  assert.deepEqual(lengths, [1, 1, 2, 3]);
  assert.deepEqual(log.slice(5, 9, 1000), []);
});

test('what is committed is handed out once, when it is durable', () => {
  const log = aLog();
  log.append(entries(1, 1, 1, 1));
  const first = log.takeAppend();
  log.commitTo(3);

  assert.deepEqual(log.takeCommitted(1000), []);
  log.persisted(first.attestation);
  assert.deepEqual(
    log.takeCommitted(ENTRY_BYTES).map(({ index }) => index),
    [1],
  );
  assert.ok(Math.min(log.committedIndex, log.stableIndex) > log.handedOutIndex);
  assert.deepEqual(
    log.takeCommitted(1000).map(({ index }) => index),
    [2, 3],
  );
  assert.deepEqual(log.takeCommitted(1000), []);
});

test('a write that is overwritten while it runs attests only what remains of it', () => {
  const log = aLog(1);
  log.append(entries(2, 1, 1, 1));
  const old = log.takeAppend();
  log.accept(2, 1, entries(3, 2, 2));
  const young = log.takeAppend();

  log.persisted(old.attestation);
  assert.equal(log.stableIndex, 2);
  log.persisted(young.attestation);
  assert.equal(log.stableIndex, 4);
  assert.deepEqual(
    young.entries.map(({ index, term }) => `${index}/${term}`),
    ['3/2', '4/2'],
  );
});

test('writes become durable in order', () => {
  const log = aLog();
  log.append(entries(1, 1));
  log.takeAppend();
  log.append(entries(2, 1));
  const second = log.takeAppend();

  assert.throws(() => log.persisted(second.attestation), { name: 'AssertionError' });
});

test('compaction keeps the term of the last entry it takes, and takes only what is applied', () => {
  const log = aLog(1, 2, 3, 3);
  log.commitTo(3);
  log.takeCommitted(1000);

  log.compact(2);

  assert.deepEqual(
    [log.firstIndex, log.lastIndex, log.termOf(1), log.termOf(2), log.termOf(3)],
    [3, 4, undefined, 2, 3],
  );
  assert.equal(log.slice(2, 4, 1000), undefined);
  assert.throws(() => log.compact(4), { name: 'AssertionError' });
});

test('a snapshot takes the place of everything, and of the writes that are on their way', () => {
  const log = aLog(1, 1);
  log.append(entries(3, 1, 1, 1, 1, 1));
  const { attestation } = log.takeAppend();
  log.restore({ index: 4, term: 2, configuration: emptyConfiguration, stateHash: 0 });

  log.persisted(attestation);

  assert.deepEqual(
    [log.firstIndex, log.lastIndex, log.lastTerm, log.stableIndex, log.committedIndex],
    [5, 4, 2, 4, 4],
  );
  assert.throws(() => log.restore({ index: 4, term: 2, configuration: emptyConfiguration, stateHash: 0 }), {
    name: 'AssertionError',
  });
});

test('after any messages of leaders whose logs are right, the log is a leader’s as far as it says', () => {
  const aMessage = fc.record({
    term: fc.integer({ min: 1, max: 4 }),
    from: fc.nat(8),
    count: fc.nat(5),
    isWritten: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(aMessage, { maxLength: 30 }), (messages) => {
      const log = aLog();
      // The leader of term t has the log 1, 1, 2, 2, … and then t for ever.
      const leaderTerm = (term: number, index: number) =>
        index === 0 ? 0 : Math.min(term, Math.ceil(index / 2));
      for (const { term, from, count, isWritten } of messages) {
        const sent = entries(
          from + 1,
          ...Array.from({ length: count }, (_, at) => leaderTerm(term, from + 1 + at)),
        );
        const last = log.accept(from, leaderTerm(term, from), sent);
        for (let index = 1; index <= (last ?? 0); index++)
          assert.equal(log.termOf(index), leaderTerm(term, index));
        if (isWritten) log.persisted(log.takeAppend().attestation);
        assert.ok(log.stableIndex <= log.lastIndex);
        if (isWritten) assert.equal(log.stableIndex, log.lastIndex);
      }
    }),
  );
});
