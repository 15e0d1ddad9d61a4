// IPv6 of the link between the host and one of its networks: a /127 of unique local addresses (RFC 4193) that ends with the
// bits of the link's IPv4 addresses. It is this machine's business alone.

import { existsSync } from 'node:fs';
import type { NetlinkMessage } from '../linux/netlink.ts';
import { addAddress, addRoute } from '../linux/rtnetlink.ts';

const PREFIX_LENGTH = 127;
const PREFIX = Buffer.from('fd7473737761726d00000000', 'hex');
/** fe80::1 and fe80::2: who forwards asks for neighbours with such an address, and not at all without. */
const linkLocal = {
  host: Buffer.from('fe800000000000000000000000000001', 'hex'),
  network: Buffer.from('fe800000000000000000000000000002', 'hex'),
} as const;
const LINK_LOCAL_PREFIX_LENGTH = 64;
export const NO_IPV6_ADDRESS = Buffer.alloc(16);

/** False where the kernel was started without IPv6. */
export function isIpv6InKernel(): boolean {
  return existsSync('/proc/sys/net/ipv6');
}

export const ipv6IsOn = ['ipv6/conf/all/disable_ipv6', '0'] as const;
/** Of a network's namespace, where the network has IPv6. */
export const ipv6Settings: readonly (readonly [name: string, value: string])[] = [
  ipv6IsOn,
  ['ipv6/conf/all/forwarding', '1'],
];

/** The IPv6 address of the end of a link with this IPv4 address. */
export function ipv6End(end: Buffer): Buffer {
  return Buffer.concat([PREFIX, end]);
}

export interface LinkEnds<T> {
  readonly host: T;
  readonly network: T;
}

/** Addresses of both ends, and the network's default route. `ends` are their IPv4 addresses. */
export function ipv6LinkMessages(
  indexes: LinkEnds<number>,
  ends: LinkEnds<Buffer>,
): LinkEnds<NetlinkMessage[]> {
  const addresses = (end: keyof LinkEnds<unknown>) => [
    addAddress({
      linkIndex: indexes[end],
      address: linkLocal[end],
      prefixLength: LINK_LOCAL_PREFIX_LENGTH,
    }),
    addAddress({ linkIndex: indexes[end], address: ipv6End(ends[end]), prefixLength: PREFIX_LENGTH }),
  ];
  const wayOut = addRoute({
    destination: NO_IPV6_ADDRESS,
    prefixLength: 0,
    gateway: ipv6End(ends.host),
    linkIndex: indexes.network,
  });
  return { host: addresses('host'), network: [...addresses('network'), wayOut] };
}
