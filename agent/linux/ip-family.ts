// The two families of internet addresses, as the kernel tells them apart.

import { assert } from '../../core/assert.ts';

export type IpFamily = 'ipv4' | 'ipv6';

export interface FamilyTraits {
  /** AF_INET or AF_INET6. */
  readonly number: number;
  readonly addressBytes: number;
  /** The length of a prefix that has one address. */
  readonly hostPrefixLength: number;
}

export const ipFamilies = {
  ipv4: { number: 2, addressBytes: 4, hostPrefixLength: 32 },
  ipv6: { number: 10, addressBytes: 16, hostPrefixLength: 128 },
} as const satisfies Record<IpFamily, FamilyTraits>;

/** The family of an address in the bytes of the wire. */
export function familyOfBytes(address: Buffer): IpFamily {
  assert(address.length === 4 || address.length === 16, `an address of ${address.length} bytes`);
  return address.length === 4 ? 'ipv4' : 'ipv6';
}
