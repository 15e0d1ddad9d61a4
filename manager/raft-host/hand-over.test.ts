import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LeaderView, planHandOver, type Successor } from './hand-over.ts';
import { WriteTimes } from './write-times.ts';

const LIMITS = { slowForTicks: 60, pauseTicks: 1200 };

function aPeer(id: number, change: Partial<Successor> = {}): Successor {
  return { id, isConnected: true, isReplicating: true, match: 100, ...change };
}

/** A leader that has committed up to 100, with nothing wrong about it. */
function aLeader(change: Partial<LeaderView> = {}): LeaderView {
  return {
    term: 5,
    committedIndex: 100,
    space: 'ok',
    slowForTicks: 0,
    overdueIndex: undefined,
    ticksSinceHandOver: Number.POSITIVE_INFINITY,
    lowInTerm: undefined,
    voters: [aPeer(2), aPeer(3)],
    ...change,
  };
}

const SLOW = { slowForTicks: 60, overdueIndex: 105 };

test('a leader with nothing wrong about its disk keeps leadership', () => {
  assert.equal(planHandOver(aLeader(), LIMITS), undefined);
});

test('a slow leader hands over to who has what it is still writing', () => {
  const voters = [aPeer(2, { match: 104 }), aPeer(3, { match: 106 })];

  assert.deepEqual(planHandOver(aLeader({ ...SLOW, voters }), LIMITS), { to: 3, reason: 'slow-disk' });
});

test('a slow leader keeps leadership while it has been slow for a moment only, or nobody is faster', () => {
  const voters = [aPeer(2, { match: 104 }), aPeer(3, { match: 106 })];

  assert.equal(planHandOver(aLeader({ ...SLOW, slowForTicks: 59, voters }), LIMITS), undefined);
  assert.equal(planHandOver(aLeader({ ...SLOW, overdueIndex: undefined, voters }), LIMITS), undefined);
  assert.equal(planHandOver(aLeader({ ...SLOW, overdueIndex: 107, voters }), LIMITS), undefined);
});

test('nobody who is not reached, or not up to date, is handed leadership', () => {
  const unfit = [
    aPeer(2, { match: 106, isConnected: false }),
    aPeer(3, { match: 106, isReplicating: false }),
    aPeer(4, { match: 99 }),
  ];

  assert.equal(planHandOver(aLeader({ ...SLOW, voters: unfit }), LIMITS), undefined);
  assert.equal(planHandOver(aLeader({ space: 'low', voters: unfit }), LIMITS), undefined);
  assert.equal(planHandOver(aLeader({ space: 'low', voters: [] }), LIMITS), undefined);
});

test('a leader with little room hands over before the disk is full', () => {
  const voters = [aPeer(2), aPeer(3, { match: 103 })];

  assert.deepEqual(planHandOver(aLeader({ space: 'low', voters }), LIMITS), { to: 3, reason: 'low-disk' });
});

test('little room counts once: who leads again meanwhile goes on', () => {
  assert.equal(planHandOver(aLeader({ space: 'low', lowInTerm: 3 }), LIMITS), undefined);
  // Nobody took over in the term in which it was tried.
  assert.notEqual(planHandOver(aLeader({ space: 'low', lowInTerm: 5 }), LIMITS), undefined);
});

test('between two times a minute passes', () => {
  const voters = [aPeer(2, { match: 106 })];

  assert.equal(planHandOver(aLeader({ ...SLOW, voters, ticksSinceHandOver: 1199 }), LIMITS), undefined);
  assert.notEqual(planHandOver(aLeader({ ...SLOW, voters, ticksSinceHandOver: 1200 }), LIMITS), undefined);
});

function aDisk(): { times: WriteTimes; write: (ticks: number) => void } {
  const times = new WriteTimes({ slowTicks: 5, windowTicks: 100 });
  const write = (ticks: number) => {
    const pending = times.begin(1);
    for (let tick = 0; tick < ticks; tick++) times.tick();
    times.end(pending);
  };
  return { times, write };
}

test('writes are slow when most in the window are', () => {
  const { times, write } = aDisk();
  for (let count = 0; count < 5; count++) write(6);
  assert.ok(times.slowForTicks >= 20);

  for (let count = 0; count < 6; count++) write(0);
  times.tick();

  assert.equal(times.slowForTicks, 0);
});

test('slow writes are forgotten with the window', () => {
  const { times, write } = aDisk();
  write(6);
  times.tick();
  assert.ok(times.slowForTicks > 0);

  for (let tick = 0; tick < 100; tick++) times.tick();

  assert.equal(times.slowForTicks, 0);
});

test('a write that does not end is overdue, and slow for as long', () => {
  const { times } = aDisk();
  times.begin(7);
  for (let tick = 0; tick < 4; tick++) times.tick();
  assert.ok(times.overdue === undefined);

  for (let tick = 0; tick < 61; tick++) times.tick();

  assert.deepEqual(times.overdue, { sinceTick: 0, lastIndex: 7 });
  assert.ok(times.slowForTicks >= 60);
});

test('a write that is refused says nothing about the disk', () => {
  const { times } = aDisk();
  const pending = times.begin(7);
  for (let tick = 0; tick < 10; tick++) times.tick();

  times.drop(pending);
  times.tick();

  assert.ok(times.overdue === undefined);
  assert.equal(times.slowForTicks, 0);
});
