// What `service stop`, `start` and `restart` have in common: a change of the specs of services, and waiting for its end.

import type { ServiceSpec } from '../../../core/generated/objects.ts';
import { type Command, defineCommand } from '../../command.ts';
import { detachFlag } from '../../flags/common-flags.ts';
import { forEachName, reportFailures } from '../../names.ts';
import { converge } from '../../progress/converge.ts';

/** A command for services; `change` gives the spec that each is to have. */
export function changeRunning(change: (spec: ServiceSpec) => ServiceSpec): Command {
  return defineCommand({
    usage: '[OPTIONS] SERVICE [SERVICE...]',
    args: { min: 1, max: Number.POSITIVE_INFINITY },
    flags: { detach: detachFlag },
    completes: 'service',
    async run({ flags, args, io, connection }) {
      const control = await connection.control();
      const changed: string[] = [];
      const failures = await forEachName(args, async (name) => {
        const { service } = await control.getService({ service: name });
        const { id, specVersion, spec } = service;
        await control.updateService({
          serviceId: id,
          version: specVersion,
          spec: change(spec),
          rollback: false,
        });
        changed.push(id);
        await io.out(`${name}\n`);
      });
      let status = reportFailures(failures, io);
      if (!flags.detach)
        for (const serviceId of changed)
          status = Math.max(status, await converge({ control, serviceId, io }));
      return status;
    },
  });
}
