// Internet addresses and networks as numbers, of both families. The one place that reads and writes their text.

export type AddressFamily = 4 | 6;

export interface Address {
  readonly family: AddressFamily;
  readonly value: bigint;
}

/** All addresses whose first `length` bits are those of `base`. */
export interface Prefix {
  readonly family: AddressFamily;
  /** The first address. */
  readonly base: bigint;
  readonly length: number;
}

const GROUPS = 8;
const GROUP_BITS = 16n;
const GROUP_MAX = 0xffffn;
/** The first 96 bits of an IPv4 address that is written as one of IPv6. */
const MAPPED_PREFIX = 0xffffn;

/** How many bits an address has. */
export function addressBits(family: AddressFamily): number {
  return family === 4 ? 32 : 128;
}

/** undefined when `text` is no address. IPv4 is four numbers without leading zeros; IPv6 has no zone. */
export function parseAddress(text: string): Address | undefined {
  if (text.includes(':')) {
    const value = parseIpv6(text);
    return value === undefined ? undefined : { family: 6, value };
  }
  const value = parseIpv4(text);
  return value === undefined ? undefined : { family: 4, value };
}

/** The text of RFC 5952 for IPv6: lower case, the longest run of zeros as "::". */
export function formatAddress({ family, value }: Address): string {
  if (family === 4) return formatIpv4(value);
  if (value >> 32n === MAPPED_PREFIX) return `::ffff:${formatIpv4(value & 0xffff_ffffn)}`;
  const groups = Array.from({ length: GROUPS }, (_, index) =>
    ((value >> (GROUP_BITS * BigInt(GROUPS - 1 - index))) & GROUP_MAX).toString(16),
  );
  const { start, length } = longestZeros(groups);
  if (length < 2) return groups.join(':');
  return `${groups.slice(0, start).join(':')}::${groups.slice(start + length).join(':')}`;
}

export interface PrefixReading {
  /** "10.0.1.7/24" is read as the network that 10.0.1.7 is in. */
  readonly dropsHostBits?: boolean;
}

/** Reads "10.0.1.0/24". undefined when `text` is none, or has bits behind the prefix that are not to be dropped. */
export function parsePrefix(text: string, { dropsHostBits = false }: PrefixReading = {}): Prefix | undefined {
  const { address = '', length = '' } =
    /^(?<address>[^/]+)\/(?<length>0|[1-9]\d{0,2})$/.exec(text)?.groups ?? {};
  const parsed = parseAddress(address);
  if (parsed === undefined || Number(length) > addressBits(parsed.family)) return undefined;
  const prefix = prefixOf(parsed, Number(length));
  return dropsHostBits || prefix.base === parsed.value ? prefix : undefined;
}

/** The network of this length that the address is in. */
export function prefixOf({ family, value }: Address, length: number): Prefix {
  const hostBits = BigInt(addressBits(family) - length);
  return { family, base: (value >> hostBits) << hostBits, length };
}

export function formatPrefix({ family, base, length }: Prefix): string {
  return `${formatAddress({ family, value: base })}/${length}`;
}

/** How many addresses it has, network and broadcast address among them. */
export function prefixSize({ family, length }: Pick<Prefix, 'family' | 'length'>): bigint {
  return 1n << BigInt(addressBits(family) - length);
}

/** Of IPv4 it is the broadcast address. */
export function lastAddress(prefix: Prefix): Address {
  return { family: prefix.family, value: prefix.base + prefixSize(prefix) - 1n };
}

/** Some address is in both. */
export function overlaps(a: Prefix, b: Prefix): boolean {
  const wider = a.length < b.length ? a : b;
  const narrower = wider === a ? b : a;
  return covers(wider, narrower);
}

/** All of `inner` is in `outer`. */
export function covers(outer: Prefix, inner: Prefix): boolean {
  return inner.length >= outer.length && contains(outer, { family: inner.family, value: inner.base });
}

export function contains(prefix: Prefix, address: Address): boolean {
  return prefix.family === address.family && prefixOf(address, prefix.length).base === prefix.base;
}

function parseIpv4(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255))
    return undefined;
  return parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

function formatIpv4(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
}

function parseIpv6(text: string): bigint | undefined {
  const [head = '', tail, ...rest] = text.split('::');
  if (rest.length > 0) return undefined;
  const before = parseGroups(head, tail === undefined);
  const after = parseGroups(tail ?? '', true);
  if (before === undefined || after === undefined) return undefined;
  const missing = GROUPS - before.length - after.length;
  if (tail === undefined ? missing !== 0 : missing < 1) return undefined;
  return [...before, ...Array<bigint>(missing).fill(0n), ...after].reduce(
    (value, group) => (value << GROUP_BITS) | group,
    0n,
  );
}

/** The last two groups may be an IPv4 address at the end of the whole. */
function parseGroups(text: string, isAtEnd: boolean): bigint[] | undefined {
  if (text === '') return [];
  const groups: bigint[] = [];
  const words = text.split(':');
  for (const [index, word] of words.entries()) {
    const ipv4 = isAtEnd && index === words.length - 1 ? parseIpv4(word) : undefined;
    if (ipv4 !== undefined) groups.push(ipv4 >> GROUP_BITS, ipv4 & GROUP_MAX);
    else if (/^[0-9a-f]{1,4}$/i.test(word)) groups.push(BigInt(`0x${word}`));
    else return undefined;
  }
  return groups;
}

/** The first of the longest runs. */
function longestZeros(groups: readonly string[]): { start: number; length: number } {
  let longest = { start: 0, length: 0 };
  let start = 0;
  for (const [index, group] of groups.entries()) {
    if (group !== '0') start = index + 1;
    else if (index + 1 - start > longest.length) longest = { start, length: index + 1 - start };
  }
  return longest;
}
