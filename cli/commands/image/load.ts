// `image load`: reads an archive of images into this node, as `image save` and `docker save` write them.

import { defineCommand } from '../../command.ts';
import { switchFlag, textFlag } from '../../flags/flag.ts';
import { platformFlag } from '../../flags/platform-flag.ts';
import { loadArchive, requireReference } from '../../output/load-archive.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] [FILE|-]',
  args: { min: 0, max: 1 },
  flags: {
    input: textFlag('Read from tar archive file, instead of STDIN', { shorthand: 'i' }),
    quiet: switchFlag('Suppress the load output', { shorthand: 'q' }),
    tag: textFlag('Name of the image when the archive has none', { shorthand: 't' }),
    platform: platformFlag('Load only the given platform'),
  },
  completes: 'file',
  async run({ flags, args: [word], io, connection }) {
    if (word !== undefined && flags.input !== undefined)
      throw new UsageError('FILE and --input cannot both be given');
    if (flags.tag !== undefined) requireReference('tag', flags.tag);
    const names = await loadArchive({
      file: flags.input ?? word ?? '-',
      name: flags.tag,
      platform: flags.platform,
      io,
      connection,
    });
    if (!flags.quiet) for (const name of names) await io.out(`Loaded image: ${name}\n`);
  },
});
