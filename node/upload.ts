// Uploads: streams whose first message has the options.

import { SwarmError } from '../core/errors.ts';

/** The first message of an upload, and the bytes of all. Throws when there is none. */
export async function splitFirst<T extends { readonly data: Uint8Array }>(
  requests: AsyncIterable<T>,
): Promise<{ first: T; rest: AsyncIterable<Uint8Array> }> {
  const iterator = requests[Symbol.asyncIterator]();
  const head = await iterator.next();
  if (head.done) throw new SwarmError('invalid-argument', 'the upload is empty');
  const first = head.value;
  async function* rest(): AsyncIterable<Uint8Array> {
    if (first.data.length > 0) yield first.data;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value.data;
  }
  return { first, rest: rest() };
}
