// `network update`: labels, more addresses, and who may talk to whom.

import { validateNetworkSpec } from '../../../core/validate-network.ts';
import { defineCommand } from '../../command.ts';
import { updateNetworkFlags } from '../../flags/network-flags.ts';
import { changedNetworkSpec } from '../../flags/network-spec.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NETWORK',
  args: { min: 1, max: 1 },
  flags: updateNetworkFlags,
  completes: 'network',
  async run({ flags, given, args: [name = ''], io, connection }) {
    if (given.size === 0) throw new UsageError('nothing to update: give at least one flag');
    const control = await connection.control();
    const { network } = await control.getNetwork({ network: name, verbose: false });
    const spec = changedNetworkSpec(network, flags);
    validateNetworkSpec(spec);
    await control.updateNetwork({ networkId: network.id, version: network.meta.version, spec });
    await io.out(`${name}\n`);
  },
});
