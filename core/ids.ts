// Identifiers: 25 characters of base 36, about 129 bits of chance, as Swarm's.

/** Fills a buffer with random bytes; the real one is `node:crypto`'s randomFillSync. */
export type RandomBytes = (size: number) => Uint8Array;

const ID_LENGTH = 25;
const ID_BYTES = 17;
const ID_COUNT = 36n ** BigInt(ID_LENGTH);

/** A new identifier. The first character may be any of 0–9a–z. */
export function newId(randomBytes: RandomBytes): string {
  const value = BigInt(`0x${Buffer.from(randomBytes(ID_BYTES)).toString('hex')}`);
  // Not cut out of a longer text: V8 would keep that as well, and compare more slowly.
  return (value % ID_COUNT).toString(36).padStart(ID_LENGTH, '0');
}
