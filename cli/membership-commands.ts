// The commands of a swarm and its nodes by name, as in command-tree.ts.

import type { CommandGroup, CommandLeaf } from './command-tree.ts';

export const init: CommandLeaf = {
  name: 'init',
  summary: 'Initialize a swarm',
  load: () => import('./commands/init.ts'),
};
export const leave: CommandLeaf = {
  name: 'leave',
  summary: 'Leave the swarm',
  load: () => import('./commands/leave.ts'),
};

export const join: CommandLeaf = {
  name: 'join',
  summary: 'Join a swarm as a node and/or manager',
  load: () => import('./commands/join.ts'),
};
export const joinToken: CommandLeaf = {
  name: 'join-token',
  summary: 'Manage join tokens',
  load: () => import('./commands/join-token.ts'),
};
export const unlock: CommandLeaf = {
  name: 'unlock',
  summary: 'Unlock swarm',
  load: () => import('./commands/unlock.ts'),
};
export const unlockKey: CommandLeaf = {
  name: 'unlock-key',
  summary: 'Manage the unlock key',
  load: () => import('./commands/unlock-key.ts'),
};
export const ca: CommandLeaf = {
  name: 'ca',
  summary: 'Display and rotate the root CA',
  load: () => import('./commands/ca.ts'),
};
export const clusterUpdate: CommandLeaf = {
  name: 'update',
  summary: 'Update the swarm',
  load: () => import('./commands/cluster/update.ts'),
};

export const node: CommandGroup = {
  name: 'node',
  summary: 'Manage Swarm nodes',
  unsupported: [],
  children: [
    {
      name: 'demote',
      summary: 'Demote one or more nodes from manager in the swarm',
      load: () => import('./commands/node/demote.ts'),
    },
    {
      name: 'drain',
      summary: 'Move the tasks of one or more nodes elsewhere',
      load: () => import('./commands/node/drain.ts'),
    },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more nodes',
      load: () => import('./commands/node/inspect.ts'),
    },
    {
      name: 'ls',
      aliases: ['list'],
      summary: 'List nodes in the swarm',
      load: () => import('./commands/node/ls.ts'),
    },
    {
      name: 'promote',
      summary: 'Promote one or more nodes to manager in the swarm',
      load: () => import('./commands/node/promote.ts'),
    },
    {
      name: 'ps',
      summary: 'List tasks running on one or more nodes, defaults to current node',
      load: () => import('./commands/node/ps.ts'),
    },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more nodes from the swarm',
      load: () => import('./commands/node/rm.ts'),
    },
    { name: 'update', summary: 'Update a node', load: () => import('./commands/node/update.ts') },
  ],
};

export const cluster: CommandGroup = {
  name: 'cluster',
  summary: "Manage the swarm's settings, and back it up",
  unsupported: [],
  children: [
    {
      name: 'backup',
      summary: 'Write everything the swarm knows to a file',
      load: () => import('./commands/cluster/backup.ts'),
    },
    {
      name: 'capacity',
      summary: 'Tell which services would not fit if any one node died',
      load: () => import('./commands/cluster/capacity.ts'),
    },
    {
      name: 'restore',
      summary: 'Make this node the first of a swarm from a backup',
      load: () => import('./commands/cluster/restore.ts'),
    },
    clusterUpdate,
  ],
};
