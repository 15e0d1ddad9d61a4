// `image import`: makes an image of a root file system's archive, as Docker does, when it is given a name or says what the
// image is to be; without that, it reads an archive of images, as `image load` does.

import { defineCommand } from '../../command.ts';
import type { Connection } from '../../connection.ts';
import { listFlag, switchFlag, textFlag } from '../../flags/flag.ts';
import type { Io } from '../../io.ts';
import { loadArchive, requireReference } from '../../output/load-archive.ts';
import { openSource, readChunks } from '../../output/source-file.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] FILE|- [REPOSITORY[:TAG]]',
  args: { min: 0, max: 2 },
  flags: {
    change: listFlag('Apply Dockerfile instruction to the created image', { shorthand: 'c' }),
    message: textFlag('Set commit message for imported image', { shorthand: 'm' }),
    platform: textFlag('Set platform of the created image (os/arch[/variant])', {
      defaultText: "this node's",
    }),
    input: textFlag('Read from tar archive file, instead of FILE', { shorthand: 'i' }),
    quiet: switchFlag('Suppress the load output', { shorthand: 'q' }),
    tag: textFlag('Name of the image when the archive of images has none', { shorthand: 't' }),
  },
  completes: 'file',
  async run({ flags, args: [word, name], io, connection }) {
    if (word !== undefined && flags.input !== undefined)
      throw new UsageError('FILE and --input cannot both be given');
    const file = flags.input ?? word;
    if (file === undefined) throw new UsageError('requires FILE, or "-" for standard input');
    const { change: changes, message = '', platform = '' } = flags;
    if (name === undefined && changes.length === 0 && message === '' && platform === '') {
      if (flags.tag !== undefined) requireReference('tag', flags.tag);
      const names = await loadArchive({ file, name: flags.tag, io, connection });
      if (!flags.quiet) for (const each of names) await io.out(`Loaded image: ${each}\n`);
      return;
    }
    if (flags.tag !== undefined)
      throw new UsageError('--tag is for archives of images; name the new image behind FILE');
    if (name !== undefined) requireReference('image', name);
    const options = { reference: name ?? '', message, changes: [...changes], platform };
    await io.out(`${await createImage(file, options, io, connection)}\n`);
  },
});

interface Options {
  readonly reference: string;
  readonly message: string;
  readonly changes: string[];
  readonly platform: string;
}

/** Returns its id. */
async function createImage(file: string, options: Options, io: Io, connection: Connection): Promise<string> {
  const source = openSource(file, io, 'input');
  const call = (await connection.node()).createImage();
  try {
    await call.send({ ...options, data: new Uint8Array() });
    const rest = { reference: '', message: '', changes: [], platform: '' };
    for await (const data of readChunks(source)) await call.send({ ...rest, data });
  } finally {
    call.end();
  }
  return (await call.response).id;
}
