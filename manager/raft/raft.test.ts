import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyHardState } from '../../proto/generated/raft.ts';
import { initialConfiguration } from './configuration.ts';
import type { RaftOptions } from './contract.ts';
import { newMessage } from './message.ts';
import { Raft } from './raft.ts';

const OPTIONS: RaftOptions = {
  id: 1,
  electionTicks: 10,
  heartbeatTicks: 2,
  random: () => 0,
  limits: { appendBytesMax: 1000, window: { messagesMax: 4, bytesMax: 1000 } },
  uncommittedBytesMax: 100,
};
const members = [1, 2, 3].map((id) => ({ id, nodeId: `node-${id}`, address: '' }));

function aRaft(count: number): Raft {
  const configuration = initialConfiguration(members.slice(0, count));
  const hardState = { ...emptyHardState, term: 1, commit: 1 };
  return new Raft(OPTIONS, {
    hardState,
    snapshot: { index: 1, term: 1, configuration, stateHash: 0 },
    entries: [],
  });
}

/** Carries out everything at once; returns what was applied. */
function settle(raft: Raft): number[] {
  const applied: number[] = [];
  for (let ready = raft.takeReady(1000); ready !== undefined; ready = raft.takeReady(1000)) {
    applied.push(...ready.committed.map(({ index }) => index));
    if (ready.append !== undefined) raft.persisted(ready.append);
  }
  return applied;
}

test('a member alone elects itself and commits what its disk has, not before', () => {
  const raft = aRaft(1);
  raft.campaign();
  settle(raft);
  assert.equal(raft.role, 'leader');

  assert.deepEqual(raft.propose([new Uint8Array(3)]), { firstIndex: 3, term: 2 });
  const ready = raft.takeReady(1000);
  assert.deepEqual([raft.log.committedIndex, ready?.committed.length], [2, 0]);
  if (ready?.append !== undefined) raft.persisted(ready.append);
  assert.deepEqual(settle(raft), [3]);
});

test('proposals are refused when too much waits, but a single large one is taken', () => {
  const raft = aRaft(1);
  assert.equal(raft.propose([new Uint8Array(1)]), 'not-leader');
  raft.campaign();
  settle(raft);

  assert.equal(typeof raft.propose([new Uint8Array(500)]), 'object');
  assert.equal(raft.propose([new Uint8Array(1)]), 'overloaded');
  settle(raft);
  assert.equal(typeof raft.propose([new Uint8Array(1)]), 'object');
});

test('a member that knows of nobody stays quiet', () => {
  const raft = new Raft(OPTIONS, { hardState: emptyHardState, snapshot: undefined, entries: [] });

  for (let ticks = 0; ticks < 100; ticks++) raft.tick();

  assert.equal(raft.takeReady(1000), undefined);
});

test('two leaders of one term end the process', () => {
  const raft = aRaft(1);
  raft.campaign();
  settle(raft);

  const message = { ...newMessage('append', 1), from: 2, term: raft.term };
  assert.throws(() => raft.step(message), { name: 'AssertionError', message: /both lead/ });
});

test('a log that goes beyond the term it was written in is not begun with', () => {
  const entry = { index: 1, term: 7, kind: 'normal' as const, payload: new Uint8Array(0) };

  const start = { hardState: { ...emptyHardState, term: 6 }, snapshot: undefined, entries: [entry] };
  assert.throws(() => new Raft(OPTIONS, start), { name: 'AssertionError' });
});
