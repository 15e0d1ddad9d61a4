// `cluster update`: the settings of the whole cluster.

import { defaultClusterSpec } from '../../../core/defaults.ts';
import { validateClusterSpec } from '../../../core/validate-cluster.ts';
import { defineCommand } from '../../command.ts';
import { clusterChanges, updateClusterFlags } from '../../flags/cluster-flags.ts';
import { unlockAdvice } from '../../output/cluster-advice.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: updateClusterFlags,
  async run({ flags, given, io, connection }) {
    if (given.size === 0) throw new UsageError('nothing to update: give at least one flag');
    const said = clusterChanges(flags, { workdir: io.workdir, nowMs: io.nowMs() });
    // Compared with the cluster's heartbeat, which only the managers know.
    const { nodeSuspectAfterMs: _, ...own } = said;
    validateClusterSpec({ ...defaultClusterSpec, ...own });
    const control = await connection.control();
    const { cluster } = await control.getCluster({});
    await control.updateCluster({
      version: cluster.meta.version,
      spec: { ...cluster.spec, ...said },
      rotateWorkerToken: false,
      rotateManagerToken: false,
      rotateUnlockKey: false,
    });
    await io.out('Swarm updated.\n');
    if (said.autolock && !cluster.spec.autolock)
      await io.out(unlockAdvice((await control.getUnlockKey({})).key));
  },
});
