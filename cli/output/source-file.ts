// Files that a command sends.

import { createReadStream } from 'node:fs';
import { invalidField, messageOf } from '../../core/errors.ts';
import type { Io } from '../io.ts';

const CHUNK_BYTES_MAX = 2 ** 20;

/** The bytes of a file, or of standard input for "-". `field` names it in errors. */
export async function* openSource(file: string, io: Io, field: string): AsyncIterable<Uint8Array> {
  if (file === '-') {
    yield* io.stdin;
    return;
  }
  try {
    yield* createReadStream(file, { highWaterMark: CHUNK_BYTES_MAX });
  } catch (error) {
    throw invalidField(field, messageOf(error));
  }
}

/** The same in pieces that fit a message. */
export async function* readChunks(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for await (const data of source)
    for (let start = 0; start < data.length; start += CHUNK_BYTES_MAX)
      yield data.subarray(start, start + CHUNK_BYTES_MAX);
}
