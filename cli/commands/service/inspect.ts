// `service inspect`.

import type { Service } from '../../../core/generated/objects.ts';
import { defineCommand } from '../../command.ts';
import { inspectFlags } from '../../flags/common-flags.ts';
import { inspectObjects } from '../../inspect/inspect-objects.ts';
import { prettyService } from '../../inspect/service-pretty.ts';
import { toDockerService } from '../../inspect/service-shape.ts';

export const command = defineCommand({
  usage: '[OPTIONS] SERVICE [SERVICE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: inspectFlags,
  completes: 'service',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    return inspectObjects<Service>({
      names: args,
      find: async (name) => (await control.getService({ service: name })).service,
      toShape: toDockerService,
      toText: (service) => prettyService(service, io.nowMs()),
      flags,
      io,
    });
  },
});
