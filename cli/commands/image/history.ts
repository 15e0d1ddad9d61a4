// `image history`: how the layers of an image came to be.

import { defineCommand } from '../../command.ts';
import { formatFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { switchFlag } from '../../flags/flag.ts';
import { platformFlag } from '../../flags/platform-flag.ts';
import { formatList } from '../../format/list-format.ts';
import { historyOf } from '../../inspect/image-shape.ts';
import { formatDecimalSize, formatElapsed, shortId, truncate } from '../../output/human.ts';

const TITLES = {
  ID: 'IMAGE',
  CreatedSince: 'CREATED',
  CreatedAt: 'CREATED AT',
  CreatedBy: 'CREATED BY',
  Size: 'SIZE',
  Comment: 'COMMENT',
};
const LAYOUT = '{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}';
// Docker's width of that column.
const CREATED_BY_LENGTH = 45;

export const command = defineCommand({
  usage: '[OPTIONS] IMAGE',
  args: { min: 1, max: 1 },
  flags: {
    format: formatFlag,
    human: switchFlag('Print sizes and dates in human readable format', {
      shorthand: 'H',
      defaultText: 'true',
    }),
    'no-trunc': noTruncFlag,
    quiet: quietFlag,
    platform: platformFlag('Show history for the given platform'),
  },
  completes: 'image',
  async run({ flags, args: [reference = ''], io, connection }) {
    const found = await (await connection.node()).inspectImage({ reference, platform: flags.platform ?? '' });
    const isFull = flags['no-trunc'] ?? false;
    const isHuman = flags.human ?? true;
    const rows = historyOf(found).map(({ id, createdAtMs, createdBy, comment, sizeBytes }) => {
      const createdAt = createdAtMs > 0 ? new Date(createdAtMs).toISOString().replace('.000Z', 'Z') : 'N/A';
      const age = createdAtMs > 0 ? `${formatElapsed(io.nowMs() - createdAtMs)} ago` : 'N/A';
      return {
        ID: isFull || id.startsWith('<') ? id : shortId(id.replace(/^sha256:/, '')),
        CreatedAt: createdAt,
        CreatedSince: isHuman ? age : createdAt,
        CreatedBy: isFull ? createdBy : truncate(createdBy.replaceAll(/\s+/g, ' '), CREATED_BY_LENGTH),
        Size: isHuman ? formatDecimalSize(sizeBytes) : String(sizeBytes),
        Comment: comment,
      };
    });
    await io.out(
      formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format, isQuiet: flags.quiet }),
    );
  },
});
