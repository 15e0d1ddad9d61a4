// `image rm`: takes names off images of this node, and the images that have none left.

import { defineCommand } from '../../command.ts';
import { switchFlag, unsupportedFlags } from '../../flags/flag.ts';
import { platformFlag } from '../../flags/platform-flag.ts';
import { forEachName, reportFailures } from '../../names.ts';

export const command = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    force: switchFlag('Force removal of the image', { shorthand: 'f' }),
    platform: platformFlag('Remove only the given platform'),
    ...unsupportedFlags(['no-prune']),
  },
  completes: 'image',
  async run({ flags, args, io, connection }) {
    const node = await connection.node();
    const failures = await forEachName(args, async (reference) => {
      const { untagged, deleted } = await node.removeImage({
        reference,
        force: flags.force ?? false,
        platform: flags.platform ?? '',
      });
      for (const name of untagged) await io.out(`Untagged: ${name}\n`);
      for (const digest of deleted) await io.out(`Deleted: ${digest}\n`);
    });
    return reportFailures(failures, io);
  },
});
