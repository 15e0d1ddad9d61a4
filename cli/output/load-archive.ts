// Sends an archive of images to the node.

import { invalidField, messageOf } from '../../core/errors.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import type { Connection } from '../connection.ts';
import type { Io } from '../io.ts';
import { openSource, readChunks } from './source-file.ts';

interface Load {
  /** "-": standard input. */
  readonly file: string;
  /** The image's name when the archive has none. */
  readonly name?: string | undefined;
  /** Of several in the archive. */
  readonly platform?: string | undefined;
  readonly io: Io;
  readonly connection: Connection;
}

/** Returns the names of the images. */
export async function loadArchive({
  file,
  name = '',
  platform = '',
  io,
  connection,
}: Load): Promise<readonly string[]> {
  const source = openSource(file, io, 'input');
  const call = (await connection.node()).importImages();
  try {
    await call.send({ reference: name, platform, data: new Uint8Array() });
    for await (const data of readChunks(source)) await call.send({ reference: '', platform: '', data });
  } finally {
    call.end();
  }
  return (await call.response).names;
}

/** Throws `invalid-argument` naming the field. */
export function requireReference(field: string, name: string): void {
  try {
    parseImageReference(name);
  } catch (error) {
    throw invalidField(field, messageOf(error));
  }
}
