// How many tasks of one service each node has. Most services have few tasks, and there may be a hundred thousand of them:
// those have a list. The others have a hash table of numbers, a quarter of what a Map of them takes.

import type { NodeInfo } from './node-info.ts';

const LISTED_MAX = 16;
// A power of two, with room for what the list had.
const SLOTS_MIN = 32;
const FREE = -1;

export class TaskCounts {
  /** The index of a node for each task of it; unused once there is a table. */
  #list: number[] = [];
  /** Two numbers each slot: the index of a node, and how many tasks it has, which may be none any more. */
  #table: Int32Array | undefined;
  /** Slots that are not free. */
  #used = 0;

  on({ index }: NodeInfo): number {
    const table = this.#table;
    if (table !== undefined) return table[slotOf(table, index) + 1] ?? 0;
    let count = 0;
    for (const each of this.#list) if (each === index) count++;
    return count;
  }

  /** Visits every node that has tasks of it by its index, some of them more than once, with a number to add up. */
  forEach(visit: (index: number, count: number) => void): void {
    const table = this.#table;
    if (table === undefined) for (const index of this.#list) visit(index, 1);
    else
      for (let at = 0; at < table.length; at += 2) {
        const count = table[at + 1] ?? 0;
        if (count > 0) visit(table[at] ?? 0, count);
      }
  }

  add({ index }: NodeInfo): void {
    if (this.#table === undefined && this.#list.length < LISTED_MAX) {
      this.#list.push(index);
      return;
    }
    if (this.#table === undefined) {
      this.#table = newTable(SLOTS_MIN);
      for (const each of this.#list) this.#addTo(this.#table, each, 1);
      this.#list = [];
    }
    this.#addTo(this.#table, index, 1);
  }

  remove({ index }: NodeInfo): void {
    if (this.#table !== undefined) {
      const at = slotOf(this.#table, index);
      const count = this.#table[at + 1] ?? 0;
      if (count > 0) this.#table[at + 1] = count - 1;
      return;
    }
    const at = this.#list.indexOf(index);
    if (at >= 0) this.#list.splice(at, 1);
  }

  #addTo(table: Int32Array, index: number, count: number): void {
    let into = table;
    let at = slotOf(into, index);
    if (into[at] === FREE) {
      if ((this.#used + 1) * 8 > into.length * 3) {
        into = this.#withRoom(into);
        at = slotOf(into, index);
      }
      into[at] = index;
      this.#used++;
    }
    into[at + 1] = (into[at + 1] ?? 0) + count;
  }

  /** Another table with what counts in this one, at most half full. */
  #withRoom(table: Int32Array): Int32Array {
    let nodes = 0;
    for (let at = 1; at < table.length; at += 2) if ((table[at] ?? 0) > 0) nodes++;
    let slots = SLOTS_MIN;
    while (slots < (nodes + 1) * 2) slots *= 2;
    const larger = newTable(slots);
    this.#used = 0;
    for (let at = 0; at < table.length; at += 2)
      if ((table[at + 1] ?? 0) > 0) this.#addTo(larger, table[at] ?? 0, table[at + 1] ?? 0);
    this.#table = larger;
    return larger;
  }
}

function newTable(slots: number): Int32Array {
  const table = new Int32Array(slots * 2);
  for (let at = 0; at < table.length; at += 2) table[at] = FREE;
  return table;
}

/** Where the node stands in the table, or where it would: there is a free slot. */
function slotOf(table: Int32Array, index: number): number {
  const mask = table.length / 2 - 1;
  // Knuth's multiplicative hashing: neighbours are far apart.
  let slot = (Math.imul(index, 0x9e3779b1) >>> 8) & mask;
  for (;;) {
    const found = table[slot * 2];
    if (found === index || found === FREE) return slot * 2;
    slot = (slot + 1) & mask;
  }
}
