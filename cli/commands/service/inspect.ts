// `service inspect`.

import type { Network, Service } from '../../../core/generated/objects.ts';
import { defineCommand } from '../../command.ts';
import { inspectFlags } from '../../flags/common-flags.ts';
import { inspectObjects } from '../../inspect/inspect-objects.ts';
import { prettyService } from '../../inspect/service-pretty.ts';
import { toDockerService } from '../../inspect/service-shape.ts';

interface Found {
  readonly service: Service;
  readonly networks: readonly Network[];
  readonly updatedBy: string;
}

export const command = defineCommand({
  usage: '[OPTIONS] SERVICE [SERVICE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: inspectFlags,
  completes: 'service',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    let known: Promise<readonly Network[]> | undefined;
    /** Asked for once, and only when a service has networks. */
    const networksOf = ({ spec, virtualAddresses }: Service) => {
      if (spec.task.networks.length + virtualAddresses.length === 0) return [];
      known ??= control.listNetworks({}).then(({ networks }) => networks.map(({ network }) => network));
      return known;
    };
    return inspectObjects<Found>({
      names: args,
      find: async (name) => {
        const { service, updatedBy } = await control.getService({ service: name });
        return { service, networks: await networksOf(service), updatedBy };
      },
      toShape: ({ service, networks }) => toDockerService(service, networks),
      toText: (found) => prettyService(found, io.nowMs()),
      flags,
      io,
    });
  },
});
