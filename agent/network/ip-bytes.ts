// Addresses of both families between their text, which names things, and their bytes, which the kernel takes. Texts are as
// core/ip-address.ts writes them: one text for an address.

import { assert } from '../../core/assert.ts';
import { type AddressFamily, formatAddress, parseAddress } from '../../core/ip-address.ts';
import { type IpFamily, ipFamilies } from '../linux/ip-family.ts';

const families: Readonly<Record<AddressFamily, IpFamily>> = { 4: 'ipv4', 6: 'ipv6' };

export function familyOf(address: string): IpFamily {
  return address.includes(':') ? 'ipv6' : 'ipv4';
}

/** As netlink counts, of a family as core/ip-address.ts does. */
export function familyNamed(family: AddressFamily): IpFamily {
  return families[family];
}

/** Of an address that has been checked. */
export function bytesOf(address: string): Buffer {
  if (familyOf(address) === 'ipv4') return Buffer.from(address.split('.').map(Number));
  const parsed = parseAddress(address);
  assert(parsed !== undefined, `"${address}" is no address`);
  return valueBytes(parsed.value, 'ipv6');
}

/** Of an address as a number. */
export function valueBytes(value: bigint, family: IpFamily): Buffer {
  const { addressBytes } = ipFamilies[family];
  return Buffer.from(value.toString(16).padStart(addressBytes * 2, '0'), 'hex');
}

export function addressText(bytes: Buffer): string {
  if (bytes.length === ipFamilies.ipv4.addressBytes) return bytes.join('.');
  return formatAddress({ family: 6, value: BigInt(`0x${bytes.toString('hex')}`) });
}
