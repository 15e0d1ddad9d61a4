// `tsswarm init`: makes this machine the first node of a cluster.

import { defaultClusterSpec } from '../../core/defaults.ts';
import { defineCommand } from '../command.ts';
import {
  countFlag,
  durationFlag,
  integerFlag,
  switchFlag,
  textFlag,
  unsupportedFlags,
  valueFlag,
} from '../flags/flag.ts';
import { oneOf } from '../flags/units.ts';

const AVAILABILITIES = ['active', 'pause', 'drain'] as const;

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    'advertise-addr': textFlag('Advertised address (format: <ip|interface>)', { defaultText: 'chosen' }),
    availability: valueFlag(
      'string',
      oneOf(...AVAILABILITIES),
      'Availability of the node ("active", "pause", "drain")',
      {
        choices: AVAILABILITIES,
        defaultText: 'active',
      },
    ),
    'task-history-limit': integerFlag('Task history retention limit; negative keeps all', {
      defaultText: String(defaultClusterSpec.taskHistoryLimit),
    }),
    'dispatcher-heartbeat': durationFlag('Dispatcher heartbeat period', {
      defaultText: `${defaultClusterSpec.heartbeatPeriodMs / 1000}s`,
    }),
    'snapshot-interval': countFlag('Number of log entries between snapshots', {
      defaultText: String(defaultClusterSpec.snapshotInterval),
    }),
    'force-new-cluster': switchFlag('Go on alone with the state of this manager; the others are removed'),
    ...unsupportedFlags([
      'autolock',
      'cert-expiry',
      'data-path-addr',
      'data-path-port',
      'default-addr-pool',
      'default-addr-pool-mask-length',
      'external-ca',
      'listen-addr',
      'max-snapshots',
    ]),
  },
  async run({ flags, io, connection }) {
    const node = await connection.node();
    const { nodeId } = await node.init({
      advertiseAddress: flags['advertise-addr'] ?? '',
      availability: flags.availability ?? 'active',
      taskHistoryLimit: flags['task-history-limit'] ?? defaultClusterSpec.taskHistoryLimit,
      heartbeatPeriodMs: flags['dispatcher-heartbeat'] ?? defaultClusterSpec.heartbeatPeriodMs,
      snapshotInterval: flags['snapshot-interval'] ?? defaultClusterSpec.snapshotInterval,
      forceNewCluster: flags['force-new-cluster'] ?? false,
    });
    await io.out(`Swarm initialized: current node (${nodeId}) is now a manager.\n`);
  },
});
