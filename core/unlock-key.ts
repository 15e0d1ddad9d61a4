// The unlock key of a locked cluster, in Swarm's form: SWMKEY-1-<32 bytes in base64 without padding>.

import { SwarmError } from './errors.ts';
import type { RandomBytes } from './ids.ts';

const PREFIX = 'SWMKEY-1-';
const KEY_BYTES = 32;
// Some tools pad base64.
const UNLOCK_KEY = /^SWMKEY-1-([A-Za-z0-9+/]{43})=?$/;

/** A new key, as operators keep it. */
export function newUnlockKey(randomBytes: RandomBytes): string {
  return PREFIX + Buffer.from(randomBytes(KEY_BYTES)).toString('base64').replace(/=+$/, '');
}

/** The 32 bytes of the key. Throws `permission-denied`: who gives no key at all is refused as with a wrong one. */
export function parseUnlockKey(text: string): Uint8Array {
  const encoded = UNLOCK_KEY.exec(text)?.[1];
  if (encoded === undefined)
    throw new SwarmError(
      'permission-denied',
      'this is no unlock key: it is not SWMKEY-1- and 43 characters',
      {
        hint: 'Give the whole key that was printed when the cluster was locked, or by a manager that is not.',
      },
    );
  return new Uint8Array(Buffer.from(encoded, 'base64'));
}
