// What the leader does when a manager asks to join the group.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import type { NodeRole } from '../../core/generated/objects.ts';
import type { ConfigurationStep, Member } from '../../proto/generated/raft.ts';
import type { CallContext } from '../../rpc/server.ts';
import { aNode, NOW_MS } from '../../test/support/builders.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import type { Consensus } from '../consensus.ts';
import { Store } from '../store/store.ts';
import { membershipHandlers } from './membership-api.ts';

const LEADER: Member = { id: 1, nodeId: 'n1', address: '10.0.0.1:2377' };
const NEWCOMER: Member = { id: 2, nodeId: 'n2', address: '10.0.0.2:2377' };

/** A leader whose group has it as a learner already that lacks the log: it goes on when `catchUp` is called. */
async function start() {
  const clock = new FakeClock(NOW_MS);
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const want = (desiredRole: NodeRole) => {
    const node = store.view.node.get(NEWCOMER.nodeId) ?? aNode(NEWCOMER.nodeId);
    const wanted = { ...node, role: 'manager' as const, spec: { ...node.spec, desiredRole } };
    return store.update((tx) =>
      tx.get('node', node.id) === undefined ? tx.create('node', wanted) : tx.update('node', wanted),
    );
  };
  const configuration = { voters: [LEADER.id], members: [LEADER, NEWCOMER], removed: [], outgoingVoters: [] };
  const peers = [{ member: NEWCOMER, match: 0 }];
  const steps: ConfigurationStep['kind'][] = [];
  const consensus = {
    status: { self: LEADER, configuration, peers, committedIndex: 500 },
    changeMembers: async (change: { steps: readonly ConfigurationStep[] }) => {
      steps.push(...change.steps.map(({ kind }) => kind));
    },
  } as unknown as Consensus;
  const { joinManagers } = membershipHandlers({ store, clock, consensus, connect: () => assert.fail() });
  const context = { caller: { role: 'manager', nodeId: NEWCOMER.nodeId } } as CallContext;
  const catchUp = async () => {
    peers[0] = { member: NEWCOMER, match: 500 };
    clock.advance(1_000);
  };
  return { want, steps, catchUp, join: async () => joinManagers({ member: NEWCOMER }, context) };
}

test('a manager counts once it has the log', async () => {
  const { want, steps, catchUp, join } = await start();
  await want('manager');
  const joining = join();
  assert.deepEqual(steps, []);

  await catchUp();
  await joining;

  assert.deepEqual(steps, ['add-voter']);
});

test('one that is to become a worker while it takes up the log does not begin to count', async () => {
  const { want, steps, catchUp, join } = await start();
  await want('manager');
  const joining = join();
  await want('worker');

  await catchUp();

  await assert.rejects(joining, /node n2 is not to be a manager/);
  assert.deepEqual(steps, []);
});
