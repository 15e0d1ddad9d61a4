// IPv4 addresses and prefixes as numbers.

import { SwarmError } from '../../core/errors.ts';

export interface Prefix {
  /** The first address. */
  readonly base: number;
  readonly length: number;
}

const IPV4_PATTERN = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;

/** undefined when `text` is not an IPv4 address. */
export function parseIpv4(text: string): number | undefined {
  const parts = IPV4_PATTERN.exec(text)?.slice(1).map(Number);
  if (parts === undefined || parts.some((part) => part > 255)) return undefined;
  return ipv4Number(Buffer.from(parts));
}

export function ipv4Number(bytes: Buffer): number {
  return bytes.readUInt32BE();
}

export function ipv4Bytes(address: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(address);
  return bytes;
}

export function formatIpv4(address: number): string {
  return ipv4Bytes(address).join('.');
}

export function parsePrefix(text: string): Prefix {
  const [address = '', length = ''] = text.split('/');
  const base = parseIpv4(address);
  const lengthBits = /^\d{1,2}$/.test(length) ? Number(length) : -1;
  if (base === undefined || lengthBits < 0 || lengthBits > 32 || base % prefixSize(lengthBits) !== 0) {
    throw new SwarmError('invalid-argument', `"${text}" is not an IPv4 network such as 10.186.0.0/16`);
  }
  return { base, length: lengthBits };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatIpv4(prefix.base)}/${prefix.length}`;
}

/** How many addresses a prefix of this length has. */
export function prefixSize(length: number): number {
  return 2 ** (32 - length);
}

export function prefixesOverlap(one: Prefix, other: Prefix): boolean {
  return one.base < other.base + prefixSize(other.length) && other.base < one.base + prefixSize(one.length);
}
