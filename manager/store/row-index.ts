// In which row a task is, by its id. A hash table of rows and hashes: the ids stand in the rows. A Map of the same size holds
// twice the memory, all of it for the garbage collector to walk through, and doubles in one step, which takes half a second
// with a million tasks. This one is many small tables, each of which doubles by itself.

/** Free, and freed: a search goes on behind it. */
const FREE = -1;
const FREED = -2;
const SHARD_BITS = 8;
const SHARDS = 2 ** SHARD_BITS;
const SLOTS_MIN = 8;
/** Of all shards that have nothing: most have at first, and a table of hardly any tasks for good. */
const NO_SLOTS = newSlots(1);

interface Shard {
  /**
   * Two numbers each slot, a row and the hash of its id, where the hash leads or as soon behind as there was room; a power of
   * two of slots.
   */
  slots: Int32Array;
  /** Slots that are not free. */
  used: number;
}

export class RowIndex {
  readonly #idOf: (row: number) => string | undefined;
  readonly #shards: Shard[] = Array.from({ length: SHARDS }, () => ({ slots: NO_SLOTS, used: 0 }));
  #size = 0;
  /** What was found last: who looks a task up does so several times. */
  #lastId = '';
  #lastRow = FREE;

  /** `idOf` tells which id a row has that is in the index. */
  constructor(idOf: (row: number) => string | undefined) {
    this.#idOf = idOf;
  }

  get size(): number {
    return this.#size;
  }

  /** Slots in all tables, of eight bytes each. */
  get slots(): number {
    return this.#shards.reduce((sum, { slots }) => sum + slots.length / 2, 0);
  }

  get(id: string): number | undefined {
    if (id === this.#lastId && this.#lastRow !== FREE) return this.#lastRow;
    const hash = hashOf(id);
    const { slots } = this.#shardOf(hash);
    const at = this.#find(slots, hash, id);
    if (at < 0) return undefined;
    const row = slots[at] as number;
    this.#lastId = id;
    this.#lastRow = row;
    return row;
  }

  /** For an id that is not in the index. */
  add(id: string, row: number): void {
    const hash = hashOf(id);
    const shard = this.#shardOf(hash);
    if ((shard.used + 1) * 8 > shard.slots.length * 3) makeRoom(shard);
    put(shard.slots, hash, row);
    shard.used++;
    this.#size++;
  }

  delete(id: string): void {
    this.#lastRow = FREE;
    const hash = hashOf(id);
    const { slots } = this.#shardOf(hash);
    const at = this.#find(slots, hash, id);
    if (at < 0) return;
    slots[at] = FREED;
    this.#size--;
  }

  #shardOf(hash: number): Shard {
    return this.#shards[hash & (SHARDS - 1)] as Shard;
  }

  /** Where the row of the id stands; negative when there is none. */
  #find(slots: Int32Array, hash: number, id: string): number {
    const mask = slots.length - 1;
    for (let at = placeOf(hash, mask); ; at = (at + 2) & mask) {
      const row = slots[at] ?? FREE;
      if (row === FREE) return -1;
      if (slots[at + 1] === hash && row !== FREED && this.#idOf(row) === id) return at;
    }
  }
}

/** The first slots; twice as many, or as many when most were of rows that are gone. */
function makeRoom(shard: Shard): void {
  const before = shard.slots;
  let count = 0;
  for (let at = 0; at < before.length; at += 2) if ((before[at] ?? FREE) >= 0) count++;
  const slots = before.length / 2;
  shard.slots = newSlots(Math.max(SLOTS_MIN, count * 2 > slots ? slots * 2 : slots));
  shard.used = count;
  for (let at = 0; at < before.length; at += 2) {
    const row = before[at] ?? FREE;
    if (row >= 0) put(shard.slots, before[at + 1] ?? 0, row);
  }
}

function newSlots(count: number): Int32Array {
  return new Int32Array(count * 2).fill(FREE);
}

/** There is room. */
function put(slots: Int32Array, hash: number, row: number): void {
  const mask = slots.length - 1;
  let at = placeOf(hash, mask);
  while (slots[at] !== FREE) at = (at + 2) & mask;
  slots[at] = row;
  slots[at + 1] = hash;
}

/** The lowest bits choose the shard, those above them the slot. */
function placeOf(hash: number, mask: number): number {
  return ((hash >>> SHARD_BITS) << 1) & mask;
}

/** 32 bits, folded as in MurmurHash3's last step: neighbours are not to lie together. */
function hashOf(id: string): number {
  let hash = 0;
  for (let at = 0; at < id.length; at++) hash = (Math.imul(hash, 31) + id.charCodeAt(at)) | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
