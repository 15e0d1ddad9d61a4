// Deliberate bugs of how nodes become what they are, as edits of the source in the process that loads it (mutants.ts). The
// simulated members have to notice every one.

import path from 'node:path';
import { type FileMutant, plantNamed } from './mutants.ts';

const root = path.join(import.meta.dirname, '../..');

/** Call it before the simulation is imported. */
export function plantMemberMutant(name: string): void {
  plantNamed(MEMBER_MUTANTS, root, name);
}

export const MEMBER_MUTANTS: readonly FileMutant[] = [
  {
    name: 'a manager becomes a worker before it has left the members',
    file: 'manager/ca/plan-roles.ts',
    find: '} else if (!left.members.some((member) => member.nodeId === id)) {',
    replace: '} else if (left.nodes.some((node) => node.id === id)) {',
  },
  {
    name: 'a manager leaves although the others are no majority',
    file: 'manager/ca/plan-roles.ts',
    find: 'if (reachable >= needed) return undefined;',
    replace: 'if (reachable + needed >= 0) return undefined;',
  },
  {
    name: 'a rotation does not wait for nodes that are down',
    file: 'manager/ca/plan-rotation.ts',
    find: '(node) => node.issuerDigest !== newRootDigest || !node.trustsNewRoot',
    replace: "(node) => node.state !== 'down' && node.issuerDigest !== newRootDigest",
  },
  {
    name: 'a demoted node is a manager as long as its certificate says so',
    file: 'manager/servers.ts',
    find: "return caller.role === 'manager' && node.role === 'worker' ? { ...caller, role: 'worker' } : caller;",
    replace: 'return caller;',
  },
  {
    name: 'a removed node is let in',
    file: 'manager/servers.ts',
    find: 'if (node === undefined && store.view.cluster.size === 0) return caller;',
    replace: 'if (node === undefined) return caller;',
  },
  {
    name: 'a certificate is renewed for the role that it has',
    file: 'manager/ca/node-ca.ts',
    find: 'return { nodeId, role: node.role, isNew: false };',
    replace: "return { nodeId, role: caller.role === 'worker' ? 'worker' : 'manager', isNew: false };",
  },
];
