// Makes nodes what operators want them to be: carries out what plan-roles.ts says, and writes down why something has to
// wait.

import { defined } from '../../core/assert.ts';
import type { Clock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import type { Node } from '../../core/generated/objects.ts';
import { graceAtStartMs } from '../../core/node-silence.ts';
import { type Consensus, managersOf, roleMembers } from '../consensus.ts';
import { caLog } from '../log.ts';
import { earliest, runLoop } from '../loop.ts';
import type { Store } from '../store/store.ts';
import type { TablesView } from '../store/tables.ts';
import type { Transaction } from '../store/transaction.ts';
import { planRoles, type RoleAction, type RoleNode, type RolePlan } from './plan-roles.ts';

export interface RoleLoopOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Absent where managers keep the state elsewhere. */
  readonly consensus: Consensus | undefined;
  readonly selfId: string;
  /** Whether this leader hears the node. */
  readonly hasSession: (nodeId: string) => boolean;
  readonly onFailure?: (error: unknown) => void;
}

// Who is reachable is no event of the store: while something waits for it, it is looked at this often.
const POLL_MS = 500;

/** Runs until the signal aborts. */
export function runRoleLoop(options: RoleLoopOptions, signal: AbortSignal): Promise<void> {
  const { store, clock, consensus, selfId, hasSession } = options;
  const unreachableSinceMs = new Map<string, number>();
  const ledSinceMs = clock.nowMs();
  const pass = async () => {
    const nowMs = clock.nowMs();
    if (consensus !== undefined) noteReachability(consensus, unreachableSinceMs, nowMs);
    const [cluster] = store.view.cluster.values();
    // What the leader before knew of a node is of no use for what happens to it now.
    const nodes = roleNodes(store.view).map((node) =>
      node.state === 'ready' && !hasSession(node.id) ? { ...node, state: 'unknown' as const } : node,
    );
    const spec = cluster?.spec ?? defaultClusterSpec;
    const { deadManagerAfterMs, departedNodeAfterMs } = spec;
    // Who was down under the leader before may have come back when nobody led: it gets time to say so.
    const heardAtMs = ledSinceMs + graceAtStartMs(spec);
    const isEarly = departedNodeAfterMs > 0 && nowMs < heardAtMs;
    const plan = planRoles({
      nodes,
      members:
        consensus === undefined
          ? []
          : roleMembers(consensus.status, (nodeId) => unreachableSinceMs.get(nodeId) ?? nowMs),
      selfId,
      isChangingMembers: (consensus?.status.configuration.outgoingVoters.length ?? 0) > 0,
      nowMs,
      deadManagerAfterMs,
      departedNodeAfterMs: isEarly ? 0 : departedNodeAfterMs,
    });
    await explain(store, nodes, plan);
    for (const action of plan.actions) await carryOut(options, action);
    const isWaiting = deadManagerAfterMs > 0 || nodes.some(({ role, desiredRole }) => role !== desiredRole);
    const laterMs = earliest(plan.wakeAtMs, isEarly ? heardAtMs : undefined);
    return earliest(laterMs, isWaiting ? nowMs + POLL_MS : undefined);
  };
  return runLoop(
    {
      name: 'role',
      isRelevant: ({ decisive }) => decisive.some(({ kind }) => kind === 'node' || kind === 'cluster'),
      pass,
      ...options,
    },
    signal,
  );
}

function noteReachability({ status }: Consensus, sinceMs: Map<string, number>, nowMs: number): void {
  for (const { nodeId, isReachable } of managersOf(status))
    if (isReachable) sinceMs.delete(nodeId);
    else if (!sinceMs.has(nodeId)) sinceMs.set(nodeId, nowMs);
}

/** All nodes, as the planner of roles wants them. */
export function roleNodes(view: TablesView): RoleNode[] {
  return [...view.node.values()].map(({ id, description, role, spec, status }) => ({
    id,
    name: description.hostname || id,
    role,
    desiredRole: spec.desiredRole,
    state: status.state,
    sinceMs: status.sinceMs,
  }));
}

/** What has to wait says why in the node; what does not, no more. */
async function explain(store: Store, nodes: readonly RoleNode[], { refusals }: RolePlan): Promise<void> {
  const reasons = new Map(refusals.map(({ nodeId, reason }) => [nodeId, reason]));
  await store.batch(
    nodes.map(({ id }) => (tx: Transaction) => {
      const node = tx.get('node', id);
      const roleMessage = reasons.get(id) ?? '';
      if (node !== undefined && node.roleMessage !== roleMessage) tx.update('node', { ...node, roleMessage });
    }),
  );
}

async function carryOut({ store, consensus }: RoleLoopOptions, action: RoleAction): Promise<void> {
  caLog.info({ ...action }, 'role of a node changes');
  switch (action.kind) {
    case 'transfer-leadership':
      return defined(consensus, 'a group').transferLeadership(memberOf(consensus, action.toNodeId).id);
    case 'remove-member':
      return defined(consensus, 'a group').changeMembers({
        steps: [{ kind: 'remove', member: memberOf(consensus, action.nodeId) }],
      });
    case 'set-role':
      return changeNode(store, action.nodeId, (node) =>
        action.role === 'worker' ? withoutManagement(node) : { ...node, role: 'manager' },
      );
    case 'demote':
      return changeNode(store, action.nodeId, (node) => ({
        ...node,
        spec: { ...node.spec, desiredRole: 'worker' },
      }));
    case 'remove-node':
      return store.update((tx) => deleteNode(tx, action.nodeId));
  }
}

function memberOf(consensus: Consensus | undefined, nodeId: string) {
  const members = consensus === undefined ? [] : managersOf(consensus.status);
  return defined(
    members.find((manager) => manager.nodeId === nodeId)?.member,
    `the member of node ${nodeId}`,
  );
}

function changeNode(store: Store, nodeId: string, change: (node: Node) => Node): Promise<void> {
  return store.update((tx) => {
    const node = tx.view.node.get(nodeId);
    if (node !== undefined) tx.update('node', change(node));
  });
}

/** As a worker, without any part in the management. */
export function withoutManagement({ managerStatus: _, ...node }: Node): Node {
  return { ...node, role: 'worker', roleMessage: '', spec: { ...node.spec, desiredRole: 'worker' } };
}

/** With everything that was assigned to it. */
export function deleteNode(tx: Transaction, nodeId: string): void {
  if (tx.get('node', nodeId) === undefined) return;
  tx.delete('node', nodeId);
  for (const task of tx.view.task.values()) if (task.nodeId === nodeId) tx.delete('task', task.id);
}
