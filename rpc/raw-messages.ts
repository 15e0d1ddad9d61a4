// Messages that may still be the bytes that came: who passes them on does not read them, who acts on them does.

import { type Codec, decode, encode } from '../proto/wire.ts';

/** A message as bytes, as which it may be there already. */
export function toBytes(codec: Codec<unknown>, message: unknown): Uint8Array {
  return message instanceof Uint8Array ? message : encode(codec, message);
}

/** Messages of what may still be bytes. */
export function readAll(codec: Codec<unknown>, messages: AsyncIterable<unknown>): AsyncIterable<unknown> {
  return {
    [Symbol.asyncIterator]() {
      const incoming = messages[Symbol.asyncIterator]();
      return {
        async next() {
          const { done, value } = await incoming.next();
          if (done) return { done, value };
          return { done: false, value: value instanceof Uint8Array ? decode(codec, value) : value };
        },
        return: async () => (await incoming.return?.()) ?? { done: true, value: undefined },
      };
    },
  };
}
