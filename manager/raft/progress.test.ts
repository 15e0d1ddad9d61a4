import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Progress } from './progress.ts';

const LIMITS = { messagesMax: 3, bytesMax: 100 };

/** A peer that agrees up to `match`. */
function aReplicatingPeer(match: number): Progress {
  const progress = new Progress(match + 1, LIMITS);
  progress.accepted(match);
  progress.becomeReplicate();
  return progress;
}

test('a probe sends one append with entries and waits', () => {
  const progress = new Progress(8, LIMITS);

  progress.sent(2, 40);

  assert.deepEqual([progress.isPaused, progress.next, progress.inFlight], [true, 8, 0]);
  progress.resume();
  assert.ok(!progress.isPaused);
});

test('a probe goes back to where the peer says that it may agree, never behind what it has', () => {
  const progress = new Progress(8, LIMITS);
  progress.sent(1, 20);

  assert.ok(progress.refused(7, 3));
  assert.deepEqual([progress.next, progress.isPaused], [4, false]);
  progress.accepted(2);
  assert.ok(progress.refused(3, 0));
  assert.equal(progress.next, 3);
});

test('refusals of earlier probes change nothing', () => {
  const progress = new Progress(8, LIMITS);
  progress.refused(7, 3);

  assert.ok(!progress.refused(7, 1));
  assert.equal(progress.next, 4);
});

test('appends are sent ahead until the window is full, and again when an answer frees it', () => {
  const progress = aReplicatingPeer(5);
  for (let count = 0; count < LIMITS.messagesMax; count++) progress.sent(1, 20);

  assert.deepEqual([progress.isWindowFull, progress.isPaused, progress.next], [true, true, 9]);
  progress.accepted(7);
  progress.release(7);
  assert.deepEqual([progress.isWindowFull, progress.inFlight, progress.match], [false, 1, 7]);
});

test('the window is full by bytes as well', () => {
  const progress = aReplicatingPeer(5);

  progress.sent(1, 100);

  assert.deepEqual([progress.inFlight, progress.isWindowFull], [1, true]);
});

test('an empty append takes no room', () => {
  const progress = aReplicatingPeer(5);

  for (let count = 0; count < 10; count++) progress.sent(0, 0);

  assert.deepEqual([progress.inFlight, progress.isPaused], [0, false]);
});

test('a refusal moves a replicating peer back to what it has, unless it is an old one', () => {
  const progress = aReplicatingPeer(5);
  progress.sent(2, 40);

  assert.ok(!progress.refused(4, 0));
  assert.ok(progress.refused(7, 6));
  assert.equal(progress.next, 6);
});

test('nothing is sent while a snapshot is on its way; entries follow it', () => {
  const progress = new Progress(3, LIMITS);
  progress.becomeSnapshot(10);
  progress.resume();

  assert.ok(progress.isPaused);
  progress.becomeProbe();
  assert.deepEqual([progress.state, progress.next, progress.isPaused], ['probe', 11, false]);
});

test('after a snapshot that failed the search begins at what the peer has', () => {
  const progress = aReplicatingPeer(5);
  progress.becomeSnapshot(10);

  progress.failSnapshot();

  assert.deepEqual([progress.state, progress.next], ['probe', 6]);
});

test('whatever is answered in whatever order, what a peer has never shrinks and comes before what is sent next', () => {
  const anEvent = fc.record({
    kind: fc.constantFrom('sent', 'accepted', 'refused', 'probe', 'replicate', 'snapshot', 'fail', 'resume'),
    index: fc.nat(30),
    hint: fc.nat(30),
  });
  fc.assert(
    fc.property(fc.array(anEvent, { maxLength: 60 }), (events) => {
      const progress = new Progress(10, LIMITS);
      for (const { kind, index, hint } of events) {
        const { match } = progress;
        if (kind === 'sent' && !progress.isPaused && !progress.isWindowFull) progress.sent(1, index);
        else if (kind === 'accepted') {
          progress.accepted(index);
          progress.release(index);
        } else if (kind === 'refused') progress.refused(index, hint);
        else if (kind === 'probe') progress.becomeProbe();
        else if (kind === 'replicate') progress.becomeReplicate();
        else if (kind === 'snapshot') progress.becomeSnapshot(index);
        else if (kind === 'fail' && progress.state === 'snapshot') progress.failSnapshot();
        else if (kind === 'resume') progress.resume();
        assert.ok(progress.match >= match);
        assert.ok(progress.next > progress.match);
        assert.ok(progress.inFlight <= LIMITS.messagesMax);
      }
    }),
  );
});
