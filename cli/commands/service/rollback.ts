// `service rollback`: the spec before this one becomes the spec, or with --to any one that is kept.

import { defineCommand } from '../../command.ts';
import { detachFlag } from '../../flags/common-flags.ts';
import { countFlag, switchFlag } from '../../flags/flag.ts';
import { converge } from '../../progress/converge.ts';

export const command = defineCommand({
  usage: '[OPTIONS] SERVICE',
  args: { min: 1, max: 1 },
  flags: {
    detach: detachFlag,
    quiet: switchFlag('Suppress progress output', { shorthand: 'q' }),
    to: countFlag('Version of the spec to go back to (see "service history"); default: the previous one'),
  },
  completes: 'service',
  async run({ flags, args: [name = ''], io, connection }) {
    const control = await connection.control();
    const { service } = await control.getService({ service: name });
    const target = flags.to === undefined ? {} : { rollbackTo: flags.to };
    await control.updateService({
      serviceId: service.id,
      version: service.specVersion,
      rollback: true,
      ...target,
    });
    await io.out(`${name}\n`);
    if (flags.detach) return 0;
    return converge({ control, serviceId: service.id, io, isRollback: true, isQuiet: flags.quiet ?? false });
  },
});
