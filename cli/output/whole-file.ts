// Files that a command receives: whole or not there.

import { createWriteStream } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { invalidField, messageOf, SwarmError } from '../../core/errors.ts';

// What other programs give the files that they make; the umask takes away from it.
const MODE = 0o666;

/** The file appears under its name only when all of it is there and on the disk. `field` names it in errors. */
export async function writeWhole(
  file: string,
  messages: AsyncIterable<{ readonly data: Uint8Array }>,
  { field, mode = MODE }: { field: string; mode?: number },
): Promise<void> {
  const partial = `${file}.partial`;
  try {
    await pipeline(
      async function* () {
        for await (const { data } of messages) yield data;
      },
      createWriteStream(partial, { mode }),
    );
    const written = await open(partial, 'r');
    await written.sync();
    await written.close();
    await rename(partial, file);
  } catch (error) {
    await rm(partial, { force: true });
    throw error instanceof SwarmError ? error : invalidField(field, messageOf(error));
  }
}
