// Who becomes a manager, who stops to be one, and which nodes are given up. A manager leaves the voters before it becomes a
// worker, one at a time, and only where those who stay can go on without it. Pure; the leader decides.

import type { NodeRole, NodeState } from '../../core/generated/objects.ts';
import { earliest } from '../loop.ts';

export interface RoleNode {
  readonly id: string;
  /** For people. */
  readonly name: string;
  readonly role: NodeRole;
  readonly desiredRole: NodeRole;
  readonly state: NodeState;
  /** Since when it is in this state. */
  readonly sinceMs: number;
}

/** A manager that takes part in the log. */
export interface RoleMember {
  readonly nodeId: string;
  /** False for one that only listens yet. */
  readonly isVoter: boolean;
  /** Undefined: it is reachable. */
  readonly unreachableSinceMs?: number;
}

export interface RoleSituation {
  readonly nodes: readonly RoleNode[];
  /** Empty where the log is not kept by managers. */
  readonly members: readonly RoleMember[];
  /** The node of the leader, which decides. */
  readonly selfId: string;
  /** A change of members is under way; there is no second one at the same time. */
  readonly isChangingMembers: boolean;
  readonly nowMs: number;
  /** Managers that are unreachable for longer are demoted; 0: never. */
  readonly deadManagerAfterMs: number;
  /** Workers that are down for longer are removed; 0: never. */
  readonly departedNodeAfterMs: number;
}

/** What to do, in order. Some of it makes more possible: after it has been done, decide again. */
export type RoleAction =
  | { readonly kind: 'transfer-leadership'; readonly toNodeId: string }
  | { readonly kind: 'remove-member'; readonly nodeId: string }
  | { readonly kind: 'set-role'; readonly nodeId: string; readonly role: NodeRole }
  /** Its desired role becomes worker, for it has been unreachable for too long. */
  | { readonly kind: 'demote'; readonly nodeId: string }
  | { readonly kind: 'remove-node'; readonly nodeId: string };

export interface RoleRefusal {
  readonly nodeId: string;
  /** "node3 cannot become a worker: …", with the numbers. */
  readonly reason: string;
}

export interface RolePlan {
  readonly actions: readonly RoleAction[];
  /** Wishes that have to wait. */
  readonly refusals: readonly RoleRefusal[];
  /** When to decide again although nothing has changed. */
  readonly wakeAtMs?: number;
}

// With fewer, the next manager that is lost stops the cluster. Whether to risk that is for people to say.
const VOTERS_KEPT_MIN = 3;

export function planRoles(situation: RoleSituation): RolePlan {
  const demotions = planDemotions(situation);
  const dead = planDeadManager(situation);
  const departed = planDeparted(situation);
  const wakeAtMs = earliest(dead.wakeAtMs, departed.wakeAtMs);
  return {
    actions: [...planPromotions(situation), ...demotions.actions, ...dead.actions, ...departed.actions],
    refusals: demotions.refusals,
    ...(wakeAtMs === undefined ? undefined : { wakeAtMs }),
  };
}

/** Why this node's manager cannot be taken away, in numbers; undefined when it can. */
export function demotionRefusal(
  nodeId: string,
  { nodes, members }: Pick<RoleSituation, 'nodes' | 'members'>,
): string | undefined {
  if (!nodes.some(({ id, role }) => id !== nodeId && role === 'manager')) return 'it is the last manager';
  if (!members.some((member) => member.nodeId === nodeId && member.isVoter)) return undefined;
  const after = members.filter((member) => member.isVoter && member.nodeId !== nodeId);
  const needed = majorityOf(after.length);
  const reachable = after.filter(isReachable).length;
  if (after.length === 0) return 'it is the last manager that takes part in decisions';
  if (reachable >= needed) return undefined;
  return `it would leave ${reachable} of ${after.length} managers reachable, ${needed} are needed`;
}

function planPromotions({ nodes }: RoleSituation): RoleAction[] {
  return nodes
    .filter(({ role, desiredRole }) => role === 'worker' && desiredRole === 'manager')
    .map(({ id }) => ({ kind: 'set-role', nodeId: id, role: 'manager' }));
}

function planDemotions(situation: RoleSituation): Pick<RolePlan, 'actions' | 'refusals'> {
  const actions: RoleAction[] = [];
  const refusals: RoleRefusal[] = [];
  // What the actions so far have left.
  let left = situation;
  for (const { id, name, state } of leaving(situation)) {
    const refuse = (reason: string) =>
      refusals.push({ nodeId: id, reason: `${name} cannot become a worker: ${reason}` });
    const refusal = demotionRefusal(id, left);
    if (refusal !== undefined) {
      refuse(refusal);
    } else if (!left.members.some((member) => member.nodeId === id)) {
      actions.push({ kind: 'set-role', nodeId: id, role: 'worker' });
      left = { ...left, nodes: left.nodes.filter((node) => node.id !== id) };
    } else if (left.isChangingMembers || state === 'unknown') {
      // Its turn comes with the next decision; after a change of leader when the node has come back to the new one,
      // or is given up: with its manager out of the group it finds the others less quickly.
    } else if (id === situation.selfId) {
      const toNodeId = successor(situation);
      if (toNodeId === undefined) refuse('it leads, and no manager that stays is reachable');
      else actions.push({ kind: 'transfer-leadership', toNodeId });
    } else {
      actions.push({ kind: 'remove-member', nodeId: id });
      const members = left.members.filter((member) => member.nodeId !== id);
      left = { ...left, members, isChangingMembers: true };
    }
  }
  return { actions, refusals };
}

/**
 * Whose manager is to go, and members whose node is no more or a worker: it may have been demoted while it joined. Unreachable ones first: while they count as voters, those who
 * are reachable cannot be spared. The leader last.
 */
function leaving({ nodes, members, selfId }: RoleSituation): Pick<RoleNode, 'id' | 'name' | 'state'>[] {
  const expected = new Set(
    nodes
      .filter(({ role, desiredRole }) => role === 'manager' || desiredRole === 'manager')
      .map(({ id }) => id),
  );
  const strays = members
    .filter(({ nodeId }) => !expected.has(nodeId))
    .map(({ nodeId }) => ({ id: nodeId, name: nodeId, state: 'down' as const }));
  const unreachable = new Set(members.filter((member) => !isReachable(member)).map(({ nodeId }) => nodeId));
  const rank = (id: string) => (id === selfId ? 2 : unreachable.has(id) ? 0 : 1);
  return [
    ...strays,
    ...nodes.filter(({ role, desiredRole }) => role === 'manager' && desiredRole === 'worker'),
  ].sort((one, other) => rank(one.id) - rank(other.id));
}

function successor({ nodes, members, selfId }: RoleSituation): string | undefined {
  const stays = new Set(
    nodes
      .filter(({ role, desiredRole }) => role === 'manager' && desiredRole === 'manager')
      .map(({ id }) => id),
  );
  return members.find(
    (member) => member.isVoter && isReachable(member) && member.nodeId !== selfId && stays.has(member.nodeId),
  )?.nodeId;
}

/** One at a time: the next when the last has left the members. */
function planDeadManager(situation: RoleSituation): Pick<RolePlan, 'actions' | 'wakeAtMs'> {
  const { nodes, members, nowMs, deadManagerAfterMs, isChangingMembers } = situation;
  if (deadManagerAfterMs === 0 || isChangingMembers) return { actions: [] };
  const staying = new Set(nodes.filter(({ desiredRole }) => desiredRole === 'manager').map(({ id }) => id));
  // Until those who are about to leave have left, they would be counted among those who stay.
  if (members.some(({ nodeId }) => !staying.has(nodeId))) return { actions: [] };
  const deadAt = (member: RoleMember) => (member.unreachableSinceMs ?? Infinity) + deadManagerAfterMs;
  const candidates = members.filter((member) => canBeGivenUp(member, situation));
  const dead = candidates.find((member) => deadAt(member) <= nowMs);
  if (dead !== undefined) return { actions: [{ kind: 'demote', nodeId: dead.nodeId }] };
  const nextAtMs = Math.min(Infinity, ...candidates.map(deadAt));
  return { actions: [], ...(Number.isFinite(nextAtMs) && { wakeAtMs: nextAtMs }) };
}

function canBeGivenUp({ nodeId, isVoter }: RoleMember, situation: RoleSituation): boolean {
  if (demotionRefusal(nodeId, situation) !== undefined) return false;
  const voters = situation.members.filter((member) => member.isVoter).length;
  return !isVoter || voters - 1 >= VOTERS_KEPT_MIN;
}

function planDeparted(situation: RoleSituation): Pick<RolePlan, 'actions' | 'wakeAtMs'> {
  const { nodes, members, nowMs, departedNodeAfterMs, selfId } = situation;
  if (departedNodeAfterMs === 0) return { actions: [] };
  const isMember = new Set(members.map(({ nodeId }) => nodeId));
  const down = nodes.filter(
    ({ id, role, desiredRole, state }) =>
      state === 'down' && role === 'worker' && desiredRole === 'worker' && !isMember.has(id) && id !== selfId,
  );
  const isDue = ({ sinceMs }: RoleNode) => nowMs - sinceMs >= departedNodeAfterMs;
  const later = down.filter((node) => !isDue(node)).map(({ sinceMs }) => sinceMs + departedNodeAfterMs);
  return {
    actions: down.filter(isDue).map(({ id }) => ({ kind: 'remove-node', nodeId: id })),
    ...(later.length > 0 && { wakeAtMs: Math.min(...later) }),
  };
}

function isReachable({ unreachableSinceMs }: RoleMember): boolean {
  return unreachableSinceMs === undefined;
}

function majorityOf(count: number): number {
  return Math.floor(count / 2) + 1;
}
