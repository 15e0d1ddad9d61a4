// `image inspect`.

import { defineCommand } from '../../command.ts';
import { inspectFlags } from '../../flags/common-flags.ts';
import { platformFlag } from '../../flags/platform-flag.ts';
import { formatInspect } from '../../format/inspect-format.ts';
import { toDockerImage } from '../../inspect/image-shape.ts';
import { forEachName, reportFailures } from '../../names.ts';

export const command = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { format: inspectFlags.format, platform: platformFlag('Inspect a specific platform of the image') },
  completes: 'image',
  async run({ flags, args, io, connection }) {
    const node = await connection.node();
    const found: object[] = [];
    const failures = await forEachName(args, async (reference) => {
      found.push(toDockerImage(await node.inspectImage({ reference, platform: flags.platform ?? '' })));
    });
    if (found.length > 0 || flags.format === undefined) await io.out(formatInspect(found, flags.format));
    return reportFailures(failures, io);
  },
});
