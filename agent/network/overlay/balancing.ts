// Which slots of the kernel's map a name's backends take: a virtual address, or a published port. New connections go to
// a random slot, or to one that follows from the client's address.

import { createHash } from 'node:crypto';

/** Who gets the new connections of a name, as the kernel has it. */
export interface Balance {
  readonly chain: string;
  /** The backend of each slot. */
  readonly slots: readonly string[];
}

export interface BalanceChain {
  readonly name: string;
  readonly slots: number;
  readonly pick: SlotPick;
}

/** How a connection's slot is chosen. */
export type SlotPick = 'random' | 'client-address';

export interface Backend {
  readonly name: string;
  /** Its share, against those of the others. */
  readonly weight: number;
}

/** What a name without backends goes to. */
export const REFUSE_CHAIN = 'refuse';

/** A chain for each: the kernel takes a random number below a constant only. */
const EXACT_SLOTS_MAX = 64;
const LARGE_CLASSES = [384, 512, 768, 1024, 1536, 2048, 3072, 4096];
/** With so many slots for the backend with the smallest share, none gets a quarter more than it should. */
const SLOTS_PER_BACKEND = 4;
/** Chance shares them out, the more evenly the more there are. */
const AFFINITY_CLASSES = [1024, 4096];
const AFFINITY_SLOTS_PER_BACKEND = 16;
const SLOTS_MAX = 4096;
const UINT32_VALUES = 2 ** 32;

/** The chains that names with backends go to. */
export const balanceChains: readonly BalanceChain[] = [
  ...[...Array.from({ length: EXACT_SLOTS_MAX }, (_, index) => index + 1), ...LARGE_CLASSES].map((slots) =>
    chainOf(slots, 'random'),
  ),
  ...AFFINITY_CLASSES.map((slots) => chainOf(slots, 'client-address')),
];

const slotsByChain = new Map([
  [REFUSE_CHAIN, 0],
  ...balanceChains.map(({ name, slots }) => [name, slots] as const),
]);

/** How many slots a name of this chain has; undefined when there is no such chain. */
export function chainSlots(chain: string): number | undefined {
  return slotsByChain.get(chain);
}

/** Few slots change when few backends do. `previous` is what there is until now. */
export function planBalance(backends: readonly Backend[], pick: SlotPick, previous?: Balance): Balance {
  const weights = new Map(backends.map(({ name, weight }) => [name, weight]));
  if (weights.size === 0) return { chain: REFUSE_CHAIN, slots: [] };
  const slots =
    pick === 'random' ? planRandomSlots(weights, previous?.slots ?? []) : planAffinitySlots(weights);
  return { chain: chainOf(slots.length, pick).name, slots };
}

export function isSameBalance(one: Balance | undefined, other: Balance | undefined): boolean {
  return (
    one?.chain === other?.chain &&
    one?.slots.length === other?.slots.length &&
    (one?.slots.every((backend, slot) => backend === other?.slots[slot]) ?? true)
  );
}

function chainOf(slots: number, pick: SlotPick): BalanceChain {
  return { name: `${pick === 'random' ? 'n' : 'h'}${slots}`, slots, pick };
}

/** Who has slots keeps them as far as its share goes. */
function planRandomSlots(weights: ReadonlyMap<string, number>, previous: readonly string[]): string[] {
  const size = randomSlotCount([...weights.values()]);
  const before = new Map<string, number>();
  for (const name of previous) before.set(name, (before.get(name) ?? 0) + 1);
  const left = shares(weights, size, before);
  const take = (name: string | undefined): string | undefined => {
    const count = name === undefined ? 0 : (left.get(name) ?? 0);
    if (name === undefined || count === 0) return undefined;
    left.set(name, count - 1);
    return name;
  };
  const kept = Array.from({ length: size }, (_, slot) => take(previous[slot]));
  const rest = [...left].flatMap(([name, count]) => Array<string>(count).fill(name));
  return kept.map((name) => name ?? rest.shift()!);
}

/** Exact where that takes few slots. */
function randomSlotCount(weights: readonly number[]): number {
  const divisor = weights.reduce(greatestCommonDivisor);
  const exact = sum(weights) / divisor;
  if (exact <= EXACT_SLOTS_MAX) return exact;
  const wanted = (sum(weights) / Math.min(...weights)) * SLOTS_PER_BACKEND;
  return LARGE_CLASSES.find((size) => size >= wanted) ?? SLOTS_MAX;
}

/** How many of the slots each gets: at least one, while there are. Of equals, those are preferred that had more. */
function shares(
  weights: ReadonlyMap<string, number>,
  size: number,
  before: ReadonlyMap<string, number>,
): Map<string, number> {
  const perWeight = size / sum([...weights.values()]);
  const had = (name: string): number => before.get(name) ?? 0;
  const exact = [...weights].map(([name, weight]) => ({ name, share: weight * perWeight }));
  const order = exact.toSorted((a, b) => (b.share % 1) - (a.share % 1) || had(b.name) - had(a.name));
  const counts = new Map(order.map(({ name, share }) => [name, Math.max(Math.floor(share), 1)]));
  let left = size - sum([...counts.values()]);
  for (let index = 0; left > 0; index = (index + 1) % order.length, left--) {
    const { name } = order[index]!;
    counts.set(name, counts.get(name)! + 1);
  }
  // At least one each was too much: the largest give, or the last have none.
  for (let name = largest(counts); left < 0; name = largest(counts), left++) {
    counts.set(name, counts.get(name)! - 1);
  }
  return counts;
}

function largest(counts: ReadonlyMap<string, number>): string {
  let found = '';
  for (const [name, count] of counts) if (count >= (counts.get(found) ?? 0)) found = name;
  return found;
}

/**
 * Each slot is the backend's whose hash of the slot is the highest (rendezvous hashing, Thaler and Ravishankar 1998). So it
 * is the same on every node, whatever that had before, and when a backend comes or goes, only its own slots change.
 */
function planAffinitySlots(weights: ReadonlyMap<string, number>): string[] {
  const wanted = weights.size * AFFINITY_SLOTS_PER_BACKEND;
  const size = AFFINITY_CLASSES.find((slots) => slots >= wanted) ?? SLOTS_MAX;
  const bidders = [...weights]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, weight]) => ({
      name,
      weight,
      seed: createHash('sha256').update(name).digest().readUInt32LE(),
    }));
  return Array.from({ length: size }, (_, slot) => {
    let best = { name: '', bid: -1 };
    for (const { name, weight, seed } of bidders) {
      // With it, chances are as the weights.
      const bid = -weight / Math.log((mixed(seed, slot) + 0.5) / UINT32_VALUES);
      if (bid > best.bid) best = { name, bid };
    }
    return best.name;
  });
}

/** The last step of MurmurHash3: each bit of the result depends on each of both. */
function mixed(seed: number, slot: number): number {
  let hash = seed ^ Math.imul(slot + 1, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

function greatestCommonDivisor(one: number, other: number): number {
  return other === 0 ? one : greatestCommonDivisor(other, one % other);
}
