// `image load`: reads an archive of images into this node, as `image save` and `docker save` write them.

import { defineCommand } from '../../command.ts';
import { switchFlag, textFlag, unsupportedFlags } from '../../flags/flag.ts';
import { loadArchive } from '../../output/load-archive.ts';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    input: textFlag('Read from tar archive file, instead of STDIN', { shorthand: 'i' }),
    quiet: switchFlag('Suppress the load output', { shorthand: 'q' }),
    ...unsupportedFlags(['platform']),
  },
  async run({ flags, io, connection }) {
    const names = await loadArchive({ file: flags.input ?? '-', io, connection });
    if (!flags.quiet) for (const name of names) await io.out(`Loaded image: ${name}\n`);
  },
});
