// `network rm`.

import { hasCode } from '../../../core/errors.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag } from '../../flags/flag.ts';
import { forEachName, reportFailures } from '../../names.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NETWORK [NETWORK...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { force: switchFlag('Do not error if the network does not exist', { shorthand: 'f' }) },
  completes: 'network',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    const failures = await forEachName(args, async (name) => {
      try {
        await control.removeNetwork({ network: name });
      } catch (error) {
        if (flags.force && hasCode(error, 'not-found')) return;
        throw error;
      }
      await io.out(`${name}\n`);
    });
    return reportFailures(failures, io);
  },
});
