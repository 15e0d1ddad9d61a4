// The bytes of a secret or config, from a file or standard input.

import { invalidField } from '../../core/errors.ts';
import type { Io } from '../io.ts';
import { openSource } from '../output/source-file.ts';

// No kind may have as many; reading ends here instead of at the end of a disk.
const BYTES_MAX = 1000 * 1024;

export async function readData(file: string, io: Io): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of openSource(file, io, 'file')) {
    length += part.length;
    if (length > BYTES_MAX) throw invalidField('file', `"${file}" has more than ${BYTES_MAX} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}
