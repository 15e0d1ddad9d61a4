// What `node promote` and `node demote` have in common: a role is a wish, and the cluster carries it out when it can.

import { hasCode, SwarmError } from '../../../core/errors.ts';
import type { Node, NodeRole } from '../../../core/generated/objects.ts';
import type { Call } from '../../command.ts';
import type { Connection, Control } from '../../connection.ts';
import { switchFlag } from '../../flags/flag.ts';
import type { Io } from '../../io.ts';
import { findNode, forEachName, reportFailures } from '../../names.ts';
import { askUntil } from '../../progress/ask.ts';
import { ownNodeId } from './ls.ts';

/** A manager that joins has to fetch what the others know; a demoted one has to be taken out of their count. */
const ROLE_LIMIT_MS = 60_000;

export const roleFlags = {
  detach: switchFlag('Exit immediately instead of waiting for the role to change', { shorthand: 'd' }),
};

const done: Readonly<Record<NodeRole, (name: string) => string>> = {
  manager: (name) => `Node ${name} promoted to a manager in the swarm.\n`,
  worker: (name) => `Manager ${name} demoted in the swarm.\n`,
};

export async function changeRoles(
  role: NodeRole,
  { flags, args, io, connection }: Call<typeof roleFlags>,
): Promise<number> {
  const failures = await forEachName(args, async (name) => {
    const { nodes } = await (await connection.control()).listNodes({});
    const node = findNode(nodes, name === 'self' ? await ownNodeId(connection) : name);
    if (node.spec.desiredRole === role && missing(node, role) === '') {
      await io.out(`Node ${name} is already a ${role}.\n`);
      return;
    }
    if (node.spec.desiredRole !== role) await wish(await connection.control(), node, role);
    if (!flags.detach) await untilRole(node, role, io, connection);
    await io.out(done[role](name));
  });
  return reportFailures(failures, io);
}

async function wish(control: Control, node: Node, role: NodeRole): Promise<void> {
  const spec = { ...node.spec, desiredRole: role };
  await control.updateNode({ nodeId: node.id, version: node.meta.version, spec, address: '' });
}

/** Throws with the reason that the cluster gives when the role is not what was asked for in time. */
async function untilRole({ id }: Node, role: NodeRole, io: Io, connection: Connection): Promise<void> {
  let reason = '';
  const ask = async (control: Control) => {
    try {
      const node = findNode((await control.listNodes({})).nodes, id);
      reason = missing(node, role);
      return reason === '' || undefined;
    } catch (error) {
      // Who demotes the manager that he talks to loses it by that.
      if (hasCode(error, 'unavailable') && role === 'worker' && (await isOwnWorker(id, connection)))
        return true;
      throw error;
    }
  };
  if (await askUntil({ connection, io, ask, limitMs: ROLE_LIMIT_MS })) return;
  throw new SwarmError(
    'deadline-exceeded',
    `node ${id} is not a ${role} after ${ROLE_LIMIT_MS / 1000} s: ${reason}`,
    { hint: 'The wish stands and is tried again; "tsswarm node inspect --pretty" shows what becomes of it.' },
  );
}

/** What the node lacks to be what was asked for; empty: nothing. A manager that does not count yet is none. */
function missing(node: Node, role: NodeRole): string {
  if (node.role !== role) return node.roleMessage || `the managers have not made it a ${role} yet`;
  if (role === 'worker' || node.managerStatus?.voter) return '';
  return node.managerStatus === undefined
    ? 'its manager has not joined the others yet'
    : 'its manager is still taking up what the others know';
}

async function isOwnWorker(id: string, connection: Connection): Promise<boolean> {
  const { nodeId, state, manager } = await (await connection.node()).info({});
  return nodeId === id && state === 'active' && !manager;
}
