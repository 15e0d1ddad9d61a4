// `tsswarm init`: makes this machine the first node of a cluster.

import { defaultClusterNetwork, defaultClusterSpec } from '../../core/defaults.ts';
import { type ClusterNetwork, emptyClusterSpec } from '../../core/generated/objects.ts';
import { validateClusterNetwork, validateClusterSpec } from '../../core/validate-cluster.ts';
import { defineCommand } from '../command.ts';
import { clusterChanges, initClusterFlags } from '../flags/cluster-flags.ts';
import { countFlag, listFlag, switchFlag } from '../flags/flag.ts';
import { newNodeFlags } from '../flags/node-flags.ts';
import { joinAdvice, MANAGER_ADVICE, unlockAdvice } from '../output/cluster-advice.ts';
import { UsageError } from '../usage-error.ts';

/** What a cluster that goes on takes anew; the rest it has already. */
const GO_WITH_FORCE = new Set(['force-new-cluster', 'advertise-addr', 'listen-addr']);

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    ...initClusterFlags,
    ...newNodeFlags,
    'data-path-port': countFlag('UDP port for data path traffic (1024 - 49151; 0 = default)', {
      defaultText: String(defaultClusterNetwork.dataPathPort),
    }),
    'default-addr-pool': listFlag('Address pool for networks, in CIDR format', {
      defaultText: defaultClusterNetwork.addressPools.join(','),
    }),
    'default-addr-pool-mask-length': countFlag('Subnet mask length of networks from the pool', {
      defaultText: String(defaultClusterNetwork.addressPoolMaskLength),
    }),
    'force-new-cluster': switchFlag('Go on alone with the state of this manager; the others are removed'),
  },
  async run({ flags, given, io, connection }) {
    const isForced = flags['force-new-cluster'] ?? false;
    const settled = [...given].find((name) => isForced && !GO_WITH_FORCE.has(name));
    if (settled !== undefined)
      throw new UsageError(
        `--${settled} may not be combined with --force-new-cluster: the cluster keeps its settings`,
      );
    const said = clusterChanges(flags, { workdir: io.workdir, nowMs: io.nowMs() });
    validateClusterSpec({ ...defaultClusterSpec, ...said });
    const { nodeId, unlockKey } = await (await connection.node()).init({
      advertiseAddress: flags['advertise-addr'] ?? '',
      listenAddress: flags['listen-addr'] ?? '',
      dataPathAddress: flags['data-path-addr'] ?? '',
      availability: flags.availability ?? 'active',
      cluster: { ...emptyClusterSpec, ...said },
      clusterFields: Object.keys(said),
      network: networkOf(flags),
      forceNewCluster: isForced,
    });
    await io.out(`Swarm initialized: current node (${nodeId}) is now a manager.\n\n`);
    const tokens = await (await connection.control()).getJoinTokens({});
    await io.out(`${joinAdvice('worker', tokens)}${MANAGER_ADVICE}`);
    if (unlockKey !== '') await io.out(unlockAdvice(unlockKey));
  },
});

interface NetworkFlags {
  readonly 'default-addr-pool': readonly string[];
  readonly 'default-addr-pool-mask-length': number | undefined;
  readonly 'data-path-port': number | undefined;
}

/** Zero and nothing are for what was not said. */
function networkOf(flags: NetworkFlags): ClusterNetwork {
  const addressPools = flags['default-addr-pool'].flatMap((pools) => pools.split(','));
  const mask = flags['default-addr-pool-mask-length'];
  const port = flags['data-path-port'] || undefined;
  validateClusterNetwork({
    addressPools,
    addressPoolMaskLength: mask ?? defaultClusterNetwork.addressPoolMaskLength,
    dataPathPort: port ?? defaultClusterNetwork.dataPathPort,
  });
  return { addressPools, addressPoolMaskLength: mask ?? 0, dataPathPort: port ?? 0 };
}
