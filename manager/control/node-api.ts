// Nodes, as operators look at them, change and remove them. Roles are wishes here; the role loop carries them out.

import { parseHostPort } from '../../core/addresses.ts';
import { SwarmError } from '../../core/errors.ts';
import type { Node } from '../../core/generated/objects.ts';
import { validateNodeSpec } from '../../core/validate-spec.ts';
import type { UpdateNodeRequest, UpdateNodeResponse } from '../../proto/generated/control.ts';
import { demotionRefusal } from '../ca/plan-roles.ts';
import { deleteNode, roleNodes } from '../ca/role-loop.ts';
import { withoutNode } from '../capacity/spare.ts';
import { managersOf, roleMembers, withManagerStatus } from '../consensus.ts';
import type { Transaction } from '../store/transaction.ts';
import type { ControlOptions } from './control-api.ts';
import { findNode } from './find.ts';

export function listNodes({ store, consensus, leaderAddress }: ControlOptions): Node[] {
  const status = consensus?.status;
  return [...store.view.node.values()].map((node) => withManagerStatus(node, status, leaderAddress()));
}

export async function updateNode(
  options: ControlOptions,
  { nodeId, version, spec, address, force }: UpdateNodeRequest,
): Promise<UpdateNodeResponse> {
  validateNodeSpec(spec);
  const { store, clock } = options;
  const known = findNode(store.view, nodeId);
  if (address !== '') await moveManager(options, known, address);
  const moved = address === '' ? version : findNode(store.view, known.id).meta.version;
  await store.update((tx) => {
    const node = findNode(tx.view, known.id);
    if (spec.desiredRole === 'worker' && node.spec.desiredRole === 'manager')
      requireDispensable(options, tx, node);
    const isDrained = spec.availability === 'drain';
    const isBegun = isDrained && node.spec.availability !== 'drain';
    if (isBegun && !force) requireRoomElsewhere(tx, node, clock.nowMs());
    const drainStartedAtMs = isBegun ? clock.nowMs() : isDrained ? (node.drainStartedAtMs ?? 0) : 0;
    tx.update('node', { ...node, spec, drainStartedAtMs }, moved);
  });
  return { node: findNode(store.view, known.id) };
}

/** Refuses to drain a node whose tasks would fit nowhere else. */
function requireRoomElsewhere(tx: Transaction, node: Node, nowMs: number): void {
  const { misfits } = withoutNode(tx.view, node, { nowMs });
  if (misfits.length === 0) return;
  const reasons = misfits.map(
    ({ serviceName, tasks, reason }) =>
      `service ${serviceName} will not fit (${tasks} ${tasks === 1 ? 'task' : 'tasks'}): ${reason}`,
  );
  throw new SwarmError(
    'failed-precondition',
    `availability: node ${nameOf(node)} cannot be drained: ${reasons.join('. ')}`,
    {
      hint: 'Free or add a node, or drain it all the same with --force: what does not fit waits for a place.',
    },
  );
}

/** The others reach this manager elsewhere from now on; the node hears of it by its session. */
async function moveManager({ store, consensus }: ControlOptions, node: Node, address: string): Promise<void> {
  parseHostPort(address, 'advertise-addr');
  if (node.managerStatus === undefined)
    throw new SwarmError('failed-precondition', `advertise-addr: node ${node.id} is no manager`, {
      hint: 'Others never call a worker: its address needs no change.',
    });
  const { managerStatus } = node;
  if (consensus !== undefined) {
    const member = managersOf(consensus.status).find(({ nodeId }) => nodeId === node.id)?.member;
    if (member !== undefined)
      await consensus.changeMembers({ steps: [{ kind: 'move', member: { ...member, address } }] });
  }
  await store.update((tx) => {
    const current = findNode(tx.view, node.id);
    tx.update('node', { ...current, managerStatus: { ...managerStatus, address } });
  });
}

/** Refuses what would leave the cluster without managers, before anything of it has begun. */
function requireDispensable({ consensus }: ControlOptions, tx: Transaction, node: Node): void {
  const refusal = demotionRefusal(node.id, {
    nodes: roleNodes(tx.view).filter(({ id, desiredRole }) => id === node.id || desiredRole === 'manager'),
    members: consensus === undefined ? [] : roleMembers(consensus.status),
  });
  if (refusal === undefined) return;
  throw new SwarmError('failed-precondition', `role: node ${nameOf(node)} cannot be demoted: ${refusal}`, {
    hint: 'Promote another node first, or bring the missing managers back.',
  });
}

/** Its certificate is refused from now on; its tasks are replaced elsewhere. */
export async function removeNode(
  { store, consensus }: ControlOptions,
  reference: string,
  force: boolean,
): Promise<string> {
  return store.update((tx) => {
    const node = findNode(tx.view, reference);
    const isMember =
      consensus !== undefined && managersOf(consensus.status).some(({ nodeId }) => nodeId === node.id);
    if (node.role === 'manager' || node.spec.desiredRole === 'manager' || isMember)
      throw new SwarmError('failed-precondition', `node ${nameOf(node)} is a manager and cannot be removed`, {
        hint: `Demote it first: tsswarm node demote ${nameOf(node)}.`,
      });
    if (node.status.state !== 'down' && !force)
      throw new SwarmError(
        'failed-precondition',
        `node ${nameOf(node)} is not down and cannot be removed: it is ${node.status.state}`,
        { hint: 'Run "tsswarm leave" on it first, or use --force.' },
      );
    deleteNode(tx, node.id);
    return node.id;
  });
}

function nameOf({ id, description }: Node): string {
  return description.hostname === '' ? id : description.hostname;
}
