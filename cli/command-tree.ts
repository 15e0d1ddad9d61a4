// All commands by name. Only names and one-line summaries: a command's own file is loaded when it is called.

import type { CommandGroup, CommandLeaf } from './command-entry.ts';

const init: CommandLeaf = {
  name: 'init',
  summary: 'Initialize a swarm',
  load: () => import('./commands/init.ts'),
};
const leave: CommandLeaf = {
  name: 'leave',
  summary: 'Leave the swarm',
  load: () => import('./commands/leave.ts'),
};

const join: CommandLeaf = {
  name: 'join',
  summary: 'Join a swarm as a node and/or manager',
  load: () => import('./commands/join.ts'),
};
const joinToken: CommandLeaf = {
  name: 'join-token',
  summary: 'Manage join tokens',
  load: () => import('./commands/join-token.ts'),
};
const unlock: CommandLeaf = {
  name: 'unlock',
  summary: 'Unlock swarm',
  load: () => import('./commands/unlock.ts'),
};
const unlockKey: CommandLeaf = {
  name: 'unlock-key',
  summary: 'Manage the unlock key',
  load: () => import('./commands/unlock-key.ts'),
};
const ca: CommandLeaf = {
  name: 'ca',
  summary: 'Display and rotate the root CA',
  load: () => import('./commands/ca.ts'),
};
const clusterUpdate: CommandLeaf = {
  name: 'update',
  summary: 'Update the swarm',
  load: () => import('./commands/cluster/update.ts'),
};

const node: CommandGroup = {
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

const cluster: CommandGroup = {
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

const service: CommandGroup = {
  name: 'service',
  summary: 'Manage Swarm services',
  unsupported: [],
  children: [
    { name: 'create', summary: 'Create a new service', load: () => import('./commands/service/create.ts') },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more services',
      load: () => import('./commands/service/inspect.ts'),
    },
    {
      name: 'logs',
      summary: 'Fetch the logs of a service or task',
      load: () => import('./commands/service/logs.ts'),
    },
    {
      name: 'ls',
      aliases: ['list'],
      summary: 'List services',
      load: () => import('./commands/service/ls.ts'),
    },
    {
      name: 'ps',
      summary: 'List the tasks of one or more services',
      load: () => import('./commands/service/ps.ts'),
    },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more services',
      load: () => import('./commands/service/rm.ts'),
    },
    {
      name: 'rollback',
      summary: "Revert changes to a service's configuration",
      load: () => import('./commands/service/rollback.ts'),
    },
    {
      name: 'history',
      summary: 'List the specs that are kept of a service',
      load: () => import('./commands/service/history.ts'),
    },
    {
      name: 'scale',
      summary: 'Scale one or multiple replicated services',
      load: () => import('./commands/service/scale.ts'),
    },
    {
      name: 'restart',
      summary: 'Replace all tasks of one or more services',
      load: () => import('./commands/service/restart.ts'),
    },
    {
      name: 'start',
      summary: 'Run one or more stopped services again',
      load: () => import('./commands/service/start.ts'),
    },
    {
      name: 'stop',
      summary: 'Stop one or more services and keep what they are',
      load: () => import('./commands/service/stop.ts'),
    },
    { name: 'update', summary: 'Update a service', load: () => import('./commands/service/update.ts') },
  ],
};

const task: CommandGroup = {
  name: 'task',
  summary: 'Look at single tasks',
  unsupported: [],
  children: [
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more tasks',
      load: () => import('./commands/task/inspect.ts'),
    },
    { name: 'logs', summary: 'Fetch the logs of a task', load: () => import('./commands/task/logs.ts') },
  ],
};

const network: CommandGroup = {
  name: 'network',
  summary: 'Manage networks',
  unsupported: ['connect', 'disconnect'],
  children: [
    { name: 'create', summary: 'Create a network', load: () => import('./commands/network/create.ts') },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more networks',
      load: () => import('./commands/network/inspect.ts'),
    },
    {
      name: 'ls',
      aliases: ['list'],
      summary: 'List networks',
      load: () => import('./commands/network/ls.ts'),
    },
    {
      name: 'prune',
      summary: 'Remove all unused networks',
      load: () => import('./commands/network/prune.ts'),
    },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more networks',
      load: () => import('./commands/network/rm.ts'),
    },
    { name: 'update', summary: 'Update a network', load: () => import('./commands/network/update.ts') },
  ],
};

const secret: CommandGroup = {
  name: 'secret',
  summary: 'Manage Swarm secrets',
  unsupported: [],
  children: [
    {
      name: 'create',
      summary: 'Create a secret from a file or standard input',
      load: () => import('./commands/secret/create.ts'),
    },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more secrets',
      load: () => import('./commands/secret/inspect.ts'),
    },
    { name: 'ls', aliases: ['list'], summary: 'List secrets', load: () => import('./commands/secret/ls.ts') },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more secrets',
      load: () => import('./commands/secret/rm.ts'),
    },
    {
      name: 'update',
      summary: 'Give a secret a new version, or other labels',
      load: () => import('./commands/secret/update.ts'),
    },
  ],
};

const config: CommandGroup = {
  name: 'config',
  summary: 'Manage Swarm configs',
  unsupported: [],
  children: [
    {
      name: 'create',
      summary: 'Create a config from a file or standard input',
      load: () => import('./commands/config/create.ts'),
    },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more configs',
      load: () => import('./commands/config/inspect.ts'),
    },
    { name: 'ls', aliases: ['list'], summary: 'List configs', load: () => import('./commands/config/ls.ts') },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more configs',
      load: () => import('./commands/config/rm.ts'),
    },
    {
      name: 'update',
      summary: 'Give a config a new version, or other labels',
      load: () => import('./commands/config/update.ts'),
    },
  ],
};

const net: CommandGroup = {
  name: 'net',
  summary: 'Find out what is wrong with the traffic between services',
  unsupported: [],
  children: [
    {
      name: 'audit',
      summary: 'Compare what nodes have in the kernel with what they should have',
      load: () => import('./commands/net/audit.ts'),
    },
    {
      name: 'trace',
      summary: 'Follow a connection from a service or task to a service, hop by hop',
      load: () => import('./commands/net/trace.ts'),
    },
  ],
};

const image: CommandGroup = {
  name: 'image',
  summary: "Manage this node's images",
  unsupported: ['build'],
  children: [
    {
      name: 'export',
      aliases: ['save'],
      summary: 'Write images to an archive',
      load: () => import('./commands/image/export.ts'),
    },
    {
      name: 'history',
      summary: 'Show the history of an image',
      load: () => import('./commands/image/history.ts'),
    },
    {
      name: 'import',
      summary: 'Make an image of a root file system, or read images from an archive',
      load: () => import('./commands/image/import.ts'),
    },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more images',
      load: () => import('./commands/image/inspect.ts'),
    },
    {
      name: 'load',
      summary: 'Read images from an archive or STDIN',
      load: () => import('./commands/image/load.ts'),
    },
    { name: 'ls', aliases: ['list'], summary: 'List images', load: () => import('./commands/image/ls.ts') },
    {
      name: 'prune',
      summary: 'Remove images that nobody needs',
      load: () => import('./commands/image/prune.ts'),
    },
    {
      name: 'pull',
      summary: 'Download an image from a registry',
      load: () => import('./commands/image/pull.ts'),
    },
    {
      name: 'push',
      summary: 'Upload an image to a registry',
      load: () => import('./commands/image/push.ts'),
    },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more images',
      load: () => import('./commands/image/rm.ts'),
    },
    { name: 'tag', summary: 'Give an image another name', load: () => import('./commands/image/tag.ts') },
  ],
};

const volume: CommandGroup = {
  name: 'volume',
  summary: "Manage this node's volumes",
  unsupported: ['update'],
  children: [
    { name: 'create', summary: 'Create a volume', load: () => import('./commands/volume/create.ts') },
    {
      name: 'inspect',
      summary: 'Display detailed information on one or more volumes',
      load: () => import('./commands/volume/inspect.ts'),
    },
    { name: 'ls', aliases: ['list'], summary: 'List volumes', load: () => import('./commands/volume/ls.ts') },
    {
      name: 'prune',
      summary: 'Remove unused local volumes',
      load: () => import('./commands/volume/prune.ts'),
    },
    {
      name: 'rm',
      aliases: ['remove'],
      summary: 'Remove one or more volumes',
      load: () => import('./commands/volume/rm.ts'),
    },
  ],
};

const swarm: CommandGroup = {
  name: 'swarm',
  summary: 'Manage Swarm',
  isHidden: true,
  unsupported: [],
  children: [ca, init, join, joinToken, leave, unlock, unlockKey, clusterUpdate],
};

export const commandTree: CommandGroup = {
  name: 'tsswarm',
  summary: 'Swarm-mode clustering without Docker',
  unsupported: ['container', 'context', 'events', 'logs', 'plugin', 'stack', 'system'],
  children: [
    init,
    join,
    joinToken,
    leave,
    unlock,
    unlockKey,
    ca,
    cluster,
    {
      name: 'doctor',
      summary: 'Examine this machine: what stands in the way of a swarm, and what will hurt',
      load: () => import('./commands/doctor.ts'),
    },
    {
      name: 'info',
      summary: 'Show this node and the swarm it is part of',
      load: () => import('./commands/info.ts'),
    },
    node,
    service,
    task,
    network,
    secret,
    config,
    net,
    image,
    {
      name: 'login',
      summary: 'Authenticate to a registry',
      load: () => import('./commands/login.ts'),
    },
    {
      name: 'logout',
      summary: 'Log out from a registry',
      load: () => import('./commands/logout.ts'),
    },
    volume,
    swarm,
    {
      name: 'attach',
      summary: 'Follow what a running task writes, as it comes',
      load: () => import('./commands/attach.ts'),
    },
    {
      name: 'cp',
      summary: 'Copy files/folders between a running task and the local filesystem',
      load: () => import('./commands/cp.ts'),
    },
    {
      name: 'stats',
      summary: 'Display a live stream of what tasks of the swarm use',
      load: () => import('./commands/stats.ts'),
    },
    {
      name: 'top',
      summary: 'Display the running processes of a task',
      load: () => import('./commands/top.ts'),
    },
    {
      name: 'exec',
      summary: 'Execute a command in a running task, on whatever node it runs',
      load: () => import('./commands/exec.ts'),
    },
    {
      name: 'events',
      summary: 'Get real time events of the swarm',
      load: () => import('./commands/events.ts'),
    },
    {
      name: 'why',
      summary: 'Explain what a service, task, node or update waits for',
      load: () => import('./commands/why.ts'),
    },
    {
      name: 'version',
      summary: 'Show the versions of client and daemon',
      load: () => import('./commands/version.ts'),
    },
    {
      name: 'completion',
      summary: 'Print a completion script for bash, zsh or fish',
      load: () => import('./commands/completion.ts'),
    },
  ],
};
