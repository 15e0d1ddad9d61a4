// `volume rm`: removes volumes of this node with their data.

import { hasCode } from '../../../core/errors.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag } from '../../flags/flag.ts';
import { forEachName, reportFailures } from '../../names.ts';

export const command = defineCommand({
  usage: '[OPTIONS] VOLUME [VOLUME...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { force: switchFlag('Do not error if the volume does not exist', { shorthand: 'f' }) },
  completes: 'volume',
  async run({ flags, args, io, connection }) {
    const node = await connection.node();
    const failures = await forEachName(args, async (name) => {
      try {
        await node.removeVolume({ name });
      } catch (error) {
        if (!flags.force || !hasCode(error, 'not-found')) throw error;
      }
      await io.out(`${name}\n`);
    });
    return reportFailures(failures, io);
  },
});
