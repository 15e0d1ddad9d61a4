// `image import`: reads an archive of images into this node.

import { invalidField, messageOf } from '../../../core/errors.ts';
import { parseImageReference } from '../../../core/image-reference.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag, textFlag, unsupportedFlags } from '../../flags/flag.ts';
import { openSource, readChunks } from '../../output/source-file.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] FILE|-',
  args: { min: 0, max: 1 },
  flags: {
    input: textFlag('Read from tar archive file, instead of FILE', { shorthand: 'i' }),
    quiet: switchFlag('Suppress the load output', { shorthand: 'q' }),
    tag: textFlag('Name of the image when the archive has none', { shorthand: 't' }),
    ...unsupportedFlags(['change', 'message', 'platform'], { change: 'c', message: 'm' }),
  },
  completes: 'file',
  async run({ flags, args: [word], io, connection }) {
    if (word !== undefined && flags.input !== undefined)
      throw new UsageError('FILE and --input cannot both be given');
    const file = flags.input ?? word;
    if (file === undefined) throw new UsageError('requires FILE, or "-" for standard input');
    if (flags.tag !== undefined) requireReference(flags.tag);
    const source = openSource(file, io, 'input');
    const call = (await connection.node()).importImages();
    try {
      await call.send({ reference: flags.tag ?? '', data: new Uint8Array() });
      for await (const data of readChunks(source)) await call.send({ reference: '', data });
    } finally {
      call.end();
    }
    const { names } = await call.response;
    if (!flags.quiet) for (const name of names) await io.out(`Loaded image: ${name}\n`);
  },
});

function requireReference(name: string): void {
  try {
    parseImageReference(name);
  } catch (error) {
    throw invalidField('tag', messageOf(error));
  }
}
