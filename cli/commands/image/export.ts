// `image export`: writes images of this node to an archive that `image import` and `docker load` read.

import { defineCommand } from '../../command.ts';
import { textFlag } from '../../flags/flag.ts';
import { platformFlag } from '../../flags/platform-flag.ts';
import { writeWhole } from '../../output/whole-file.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    output: textFlag('Write to a file, instead of STDOUT', { shorthand: 'o' }),
    platform: platformFlag('Save only the given platform'),
  },
  completes: 'image',
  async run({ flags, args, io, connection }) {
    if (flags.output === undefined && io.isTerminal)
      throw new UsageError('cowardly refusing to save to a terminal. Use the -o flag or redirect');
    const messages = (await connection.node()).exportImages({
      references: args,
      platform: flags.platform ?? '',
    });
    if (flags.output === undefined) {
      for await (const { data } of messages) await io.out(data);
      return;
    }
    await writeWhole(flags.output, messages, { field: 'output' });
  },
});
