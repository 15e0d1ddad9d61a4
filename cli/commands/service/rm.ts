// `service rm`: returns at once, the tasks end by themselves.

import { defineCommand } from '../../command.ts';
import { forEachName, reportFailures } from '../../names.ts';

export const command = defineCommand({
  usage: 'SERVICE [SERVICE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {},
  completes: 'service',
  async run({ args, io, connection }) {
    const control = await connection.control();
    const failures = await forEachName(args, async (name) => {
      await control.removeService({ service: name });
      await io.out(`${name}\n`);
    });
    return reportFailures(failures, io);
  },
});
