// `network create`.

import { validateNetworkSpec } from '../../../core/validate-network.ts';
import { defineCommand } from '../../command.ts';
import { createNetworkFlags } from '../../flags/network-flags.ts';
import { newNetworkSpec } from '../../flags/network-spec.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NETWORK',
  args: { min: 1, max: 1 },
  flags: createNetworkFlags,
  async run({ flags, args: [name = ''], io, connection }) {
    const spec = newNetworkSpec(name, flags);
    validateNetworkSpec(spec);
    const { network } = await (await connection.control()).createNetwork({ spec });
    const needsNone = spec.configOnly || spec.configFrom !== '';
    if (network.subnets.length === 0 && !needsNone)
      io.err('WARNING: the managers have not chosen its addresses yet; services wait until they have\n');
    await io.out(`${network.id}\n`);
  },
});
