// How managers enter and leave the consensus group, and how nodes say goodbye. Only the leader does this.

import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Node } from '../../core/generated/objects.ts';
import {
  emptyJoinManagersResponse,
  type MembershipService,
  NodeCaService,
} from '../../proto/generated/membership.ts';
import type { ConfigurationStep, Member } from '../../proto/generated/raft.ts';
import { type Channel, createClient, withChannel } from '../../rpc/client.ts';
import type { Handlers } from '../../rpc/server.ts';
import { type Consensus, managersOf, roleMembers } from '../consensus.ts';
import { caLog } from '../log.ts';
import type { Store } from '../store/store.ts';
import type { TablesView } from '../store/tables.ts';
import { demotionRefusal } from './plan-roles.ts';
import { roleNodes } from './role-loop.ts';

export interface MembershipOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Absent where managers keep the state elsewhere. */
  readonly consensus: Consensus | undefined;
  /** A connection to this manager and no other. */
  readonly connect: (member: Member) => Channel;
}

// Swarm's: a manager that others cannot reach must not count.
const REACH_LIMIT_MS = 5_000;
const CATCH_UP_POLL_MS = 20;
// Entries that a new member may lack when it begins to count: what is written in that moment anyway.
const CATCH_UP_ENTRIES = 100;
// Without a step forward for this long, a member that catches up is stuck.
const CATCH_UP_SILENCE_MS = 30_000;

export function membershipHandlers(options: MembershipOptions): Handlers<typeof MembershipService> {
  return {
    joinManagers: async ({ member }, { caller, signal }) => {
      if (member.nodeId !== caller.nodeId)
        throw new SwarmError('permission-denied', `node ${caller.nodeId} may not join as ${member.nodeId}`);
      const { consensus } = options;
      if (consensus?.status.configuration.removed.includes(member.id))
        return { ...emptyJoinManagersResponse, removed: true };
      if (consensus !== undefined) await join(options, consensus, member, signal);
      await setManagerAddress(options.store, member.nodeId, member.address);
      const nodes = [...options.store.view.node.values()];
      const managers = nodes.filter(({ role }) => role === 'manager').map(({ id }) => id);
      return { removed: false, managers, index: options.store.index };
    },
    leaveCluster: async (_, { caller }) => {
      await leave(options, caller.nodeId);
      return {};
    },
  };
}

/** Adds the member as a learner, waits until it has the log, and lets it count. Each step may have been made before. */
async function join(
  options: MembershipOptions,
  consensus: Consensus,
  member: Member,
  signal: AbortSignal,
): Promise<void> {
  const { configuration } = consensus.status;
  const known = configuration.members.filter(({ nodeId }) => nodeId === member.nodeId);
  const same = known.find(({ id }) => id === member.id);
  if (same?.address !== member.address) await requireReachable(options, member);
  if (same === undefined) {
    // A manager that lost its disk comes back as another member.
    requireWanted(options.store, member.nodeId);
    const steps: ConfigurationStep[] = known.map((old) => ({ kind: 'remove', member: old }));
    await consensus.changeMembers({ steps: [...steps, { kind: 'add-learner', member }] });
  } else if (same.address !== member.address)
    await consensus.changeMembers({ steps: [{ kind: 'move', member }] });
  if (consensus.status.configuration.voters.includes(member.id)) return;
  await untilCaughtUp(options.clock, consensus, member, signal);
  requireWanted(options.store, member.nodeId);
  await consensus.changeMembers({ steps: [{ kind: 'add-voter', member }] });
  caLog.info({ 'node.id': member.nodeId, address: member.address }, 'manager joined');
}

/** Who is about to become a worker throws its log away, so its vote must not begin to count. */
function requireWanted({ view }: Store, nodeId: string): void {
  if (view.node.get(nodeId)?.spec.desiredRole === 'manager') return;
  throw new SwarmError('failed-precondition', `node ${nodeId} is not to be a manager`, {
    hint: 'On a manager, "tsswarm node promote" makes it one.',
  });
}

async function requireReachable({ connect }: MembershipOptions, member: Member): Promise<void> {
  try {
    await withChannel(connect(member), (channel) =>
      createClient(NodeCaService, channel).getRoots({}, { timeoutMs: REACH_LIMIT_MS }),
    );
  } catch (error) {
    throw new SwarmError(
      'failed-precondition',
      `address: the leader cannot reach the new manager at ${member.address}: ${messageOf(error)}`,
      {
        hint: 'Let the firewall pass TCP to it, or join with an --advertise-addr that the others can reach.',
      },
    );
  }
}

async function untilCaughtUp(
  clock: Clock,
  consensus: Consensus,
  { id, address }: Member,
  signal: AbortSignal,
): Promise<void> {
  let best = 0;
  let sinceMs = clock.nowMs();
  for (;;) {
    const { peers, committedIndex } = consensus.status;
    const match = peers.find(({ member }) => member.id === id)?.match ?? 0;
    if (match > 0 && match + CATCH_UP_ENTRIES >= committedIndex) return;
    if (match > best) {
      best = match;
      sinceMs = clock.nowMs();
    }
    if (clock.nowMs() - sinceMs > CATCH_UP_SILENCE_MS)
      throw new SwarmError(
        'deadline-exceeded',
        `the new manager at ${address} has not taken up the log: it has ${match} of ${committedIndex} entries`,
      );
    await sleep(clock, CATCH_UP_POLL_MS, signal);
  }
}

async function leave({ store, consensus, clock }: MembershipOptions, nodeId: string): Promise<void> {
  if (store.view.node.get(nodeId) === undefined) return;
  if (consensus !== undefined) await leaveManagers(consensus, store.view, nodeId);
  await store.update((tx) => {
    const node = tx.view.node.get(nodeId);
    if (node === undefined) return;
    const { managerStatus: _, ...rest } = node;
    const status = {
      ...node.status,
      state: 'down' as const,
      message: 'the node has left the cluster',
      sinceMs: clock.nowMs(),
      held: false,
    };
    tx.update('node', { ...rest, role: 'worker', spec: { ...node.spec, desiredRole: 'worker' }, status });
  });
  caLog.info({ 'node.id': nodeId }, 'node left');
}

/** Takes the node's member out of the group. The leader hands its leadership on, and the next leader does it. */
async function leaveManagers(consensus: Consensus, view: TablesView, nodeId: string): Promise<void> {
  const manager = managersOf(consensus.status).find((candidate) => candidate.nodeId === nodeId);
  if (manager === undefined) return;
  const members = roleMembers(consensus.status);
  const refusal = demotionRefusal(nodeId, { nodes: roleNodes(view), members });
  if (refusal !== undefined)
    throw new SwarmError('failed-precondition', `the cluster would be without managers: ${refusal}`, {
      hint: 'Promote another node first, or bring the missing managers back. --force leaves all the same.',
    });
  // After that this manager does not lead any more: whoever asked is sent to the one who does.
  if (manager.member.id === consensus.status.self.id) await consensus.transferLeadership();
  await consensus.changeMembers({ steps: [{ kind: 'remove', member: manager.member }] });
}

/** What agents and other managers dial. */
async function setManagerAddress(store: Store, nodeId: string, address: string): Promise<void> {
  await store.update((tx) => {
    const node = tx.view.node.get(nodeId);
    if (node === undefined || node.managerStatus?.address === address) return;
    const managerStatus: Node['managerStatus'] = { leader: false, reachable: false, voter: false, address };
    tx.update('node', { ...node, managerStatus });
  });
}
