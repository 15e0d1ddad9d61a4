// The addresses of one subnet: who has which, and which is next. Pure; time is passed in.
//
// Addresses are taken in turn, so that one that was given back rests as long as possible: until then other nodes may still
// send what was meant for its last owner. One that was free for less than RESERVED_MS is not given out at all.

import { isDeepStrictEqual } from 'node:util';
import { assert, defined } from '../../core/assert.ts';
import type { Subnet } from '../../core/generated/objects.ts';
import {
  type AddressFamily,
  contains,
  formatAddress,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixSize,
} from '../../core/ip-address.ts';

/** Until nodes that have a session have surely heard that the address is free. */
export const RESERVED_MS = 5_000;
/** As long as there are others, an address is not given out again for this long. */
const RESTING_MS = 60_000;
/** Of an IPv6 subnet, no more than this many addresses are given out: they are counted in memory. */
const SIZE_MAX = 2 ** 24;

export class AddressSpace {
  readonly family: AddressFamily;
  readonly subnet: Prefix;
  readonly #base: bigint;
  readonly #size: number;
  /** Offset → who has it. */
  readonly #owners = new Map<number, string>();
  /** Network and broadcast address, the gateway, what something else uses. */
  readonly #taken: ReadonlySet<number>;
  /** Offset → when it was given back, oldest first. */
  readonly #resting = new Map<number, number>();
  #next = 0;

  /** Of a subnet that has been checked. */
  constructor({ subnet, ipRange, gateway, auxiliaryAddresses }: Subnet) {
    this.subnet = defined(parsePrefix(subnet), subnet);
    const range = ipRange === '' ? this.subnet : defined(parsePrefix(ipRange), ipRange);
    this.family = this.subnet.family;
    this.#base = range.base;
    this.#size = Number(prefixSize(range) < BigInt(SIZE_MAX) ? prefixSize(range) : BigInt(SIZE_MAX));
    const last = this.subnet.base + prefixSize(this.subnet) - 1n;
    const ends = this.family === 4 ? [this.subnet.base, last] : [this.subnet.base];
    const named = [gateway, ...Object.values(auxiliaryAddresses)].flatMap((text) => parseAddress(text) ?? []);
    const taken = [...ends, ...named.map(({ value }) => value)].map((value) => Number(value - this.#base));
    this.#taken = new Set(taken.filter((offset) => offset >= 0 && offset < this.#size));
  }

  /** Gives out the same addresses. */
  isSame(other: AddressSpace): boolean {
    const isSameTaken = isDeepStrictEqual(this.#taken, other.#taken);
    return this.#base === other.#base && this.#size === other.#size && isSameTaken;
  }

  /** How many addresses can be given out. */
  get capacity(): number {
    return this.#size - this.#taken.size;
  }

  get used(): number {
    return this.#owners.size;
  }

  /** The next one to `take`; undefined: there is none, or none that has rested long enough. */
  find(nowMs: number): string | undefined {
    this.#wake(nowMs - RESTING_MS);
    const offset = this.#nextFree() ?? this.#longestResting(nowMs);
    return offset === undefined ? undefined : this.#format(offset);
  }

  /** Gives out what `find` has found. */
  take(address: string, owner: string): void {
    const offset = this.#freeOffset(address, owner);
    assert(offset !== undefined, () => `${address} was found, and is somebody's`);
    this.#give(offset, owner);
    this.#next = (offset + 1) % this.#size;
  }

  /** It is nobody's, or this owner's. */
  isFreeFor(address: string, owner: string): boolean {
    return this.#freeOffset(address, owner) !== undefined;
  }

  /** Notes an address that somebody has or asks for. False: it is somebody else's, or none of this subnet. */
  claim(address: string, owner: string): boolean {
    const offset = this.#freeOffset(address, owner);
    if (offset !== undefined) this.#give(offset, owner);
    return offset !== undefined;
  }

  /** Gives back what this owner has; else nothing happens. */
  release(address: string, owner: string, nowMs: number): void {
    const offset = this.#offsetOf(address);
    if (offset === undefined || this.#owners.get(offset) !== owner) return;
    this.#owners.delete(offset);
    this.#resting.set(offset, nowMs);
  }

  contains(address: string): boolean {
    const parsed = parseAddress(address);
    return parsed !== undefined && contains(this.subnet, parsed);
  }

  /** When the next address may be given out again that may not be yet; undefined: there is none. */
  nextFreeAtMs(nowMs: number): number | undefined {
    for (const sinceMs of this.#resting.values())
      if (sinceMs + RESERVED_MS > nowMs) return sinceMs + RESERVED_MS;
    return undefined;
  }

  #freeOffset(address: string, owner: string): number | undefined {
    const offset = this.#offsetOf(address);
    return offset === undefined || (this.#owners.get(offset) ?? owner) !== owner ? undefined : offset;
  }

  #give(offset: number, owner: string): void {
    this.#resting.delete(offset);
    this.#owners.set(offset, owner);
  }

  #nextFree(): number | undefined {
    if (this.#owners.size + this.#taken.size + this.#resting.size >= this.#size) return undefined;
    for (let step = 0; step < this.#size; step++) {
      const offset = (this.#next + step) % this.#size;
      if (!this.#owners.has(offset) && !this.#taken.has(offset) && !this.#resting.has(offset)) return offset;
    }
    return undefined;
  }

  #longestResting(nowMs: number): number | undefined {
    const [first] = this.#resting;
    return first !== undefined && first[1] <= nowMs - RESERVED_MS ? first[0] : undefined;
  }

  /** Those that were given back before then are free like the others. */
  #wake(beforeMs: number): void {
    for (const [offset, sinceMs] of this.#resting) {
      if (sinceMs > beforeMs) return;
      this.#resting.delete(offset);
    }
  }

  /** undefined outside the subnet, and for what nobody may have. Inside it, but out of the range, is fine. */
  #offsetOf(address: string): number | undefined {
    const parsed = parseAddress(address);
    if (parsed === undefined || !contains(this.subnet, parsed)) return undefined;
    const offset = Number(parsed.value - this.#base);
    return this.#taken.has(offset) ? undefined : offset;
  }

  #format(offset: number): string {
    return formatAddress({ family: this.family, value: this.#base + BigInt(offset) });
  }
}
