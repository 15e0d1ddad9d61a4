// The id of one incarnation of a member: drawn anew whenever its log begins, and never used again.

import type { RandomBytes } from './data-key.ts';

// 48 random bits: an exact number, and a collision among thousands of incarnations is out of sight.
const ID_BYTES = 6;

export function newMemberId(randomBytes: RandomBytes): number {
  // 0 means nobody.
  return randomBytes(ID_BYTES).readUIntBE(0, ID_BYTES) + 1;
}
