// `network inspect`.

import type { Node } from '../../../core/generated/objects.ts';
import type { GetNetworkResponse } from '../../../proto/generated/control.ts';
import { defineCommand } from '../../command.ts';
import { inspectFlags } from '../../flags/common-flags.ts';
import { switchFlag } from '../../flags/flag.ts';
import { inspectObjects } from '../../inspect/inspect-objects.ts';
import { prettyNetwork } from '../../inspect/network-pretty.ts';
import { toDockerNetwork } from '../../inspect/network-shape.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NETWORK [NETWORK...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    ...inspectFlags,
    verbose: switchFlag('Also show the services and tasks that are part of it', { shorthand: 'v' }),
  },
  completes: 'network',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    const verbose = flags.verbose ?? false;
    const nodes: readonly Node[] = verbose ? (await control.listNodes({})).nodes : [];
    return inspectObjects<GetNetworkResponse>({
      names: args,
      find: (name) => control.getNetwork({ network: name, verbose }),
      toShape: (found) => toDockerNetwork(found, nodes),
      toText: prettyNetwork,
      flags,
      io,
    });
  },
});
