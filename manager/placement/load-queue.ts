// Nodes by the number of their tasks, the fewest first. What is placed by way of another queue makes a node's place here
// wrong, which is found out when its turn comes; what ends has to be told.

import type { NodeInfo } from './node-info.ts';

const ABSENT = -1;
/** More than a node can have. */
const LOAD_MAX = 2 ** 31;

export class LoadQueue {
  /** None where nobody is any more: a busy cluster has been through a thousand. */
  readonly #buckets: (NodeInfo[] | undefined)[] = [];
  /** The bucket of each node by its index; shared with queues of other nodes. */
  readonly #at: Int32Array;
  /** Taken out to be given back. */
  readonly #lent: NodeInfo[] = [];
  /** Buckets below are empty. */
  #lowest = 0;

  /** `at` has room for the index of every node, and `LoadQueue.places` makes it. */
  constructor(at: Int32Array) {
    this.#at = at;
  }

  static places(count: number): Int32Array {
    return new Int32Array(count).fill(ABSENT);
  }

  add(info: NodeInfo): void {
    const load = info.taskCount;
    this.#at[info.index] = load;
    const bucket = this.#buckets[load];
    if (bucket !== undefined) bucket.push(info);
    else {
      while (this.#buckets.length < load) this.#buckets.push(undefined);
      this.#buckets[load] = [info];
    }
    if (load < this.#lowest) this.#lowest = load;
  }

  /** A node that may be in here has fewer tasks than before. */
  lighten(info: NodeInfo): void {
    // Its former entry is passed over when its turn comes.
    if ((this.#at[info.index] ?? ABSENT) > info.taskCount) this.add(info);
  }

  /** Takes out one with the fewest tasks, until it is given back. */
  take(): NodeInfo | undefined {
    const info = this.#settle();
    if (info === undefined) return undefined;
    this.#buckets[this.#lowest]?.pop();
    this.#at[info.index] = ABSENT;
    this.#lent.push(info);
    return info;
  }

  /** Nodes that were taken out, in that order. */
  get lent(): readonly NodeInfo[] {
    return this.#lent;
  }

  /** Backwards, so that of those with the same load the one that was first is again. */
  giveBack(): void {
    for (let info = this.#lent.pop(); info !== undefined; info = this.#lent.pop()) this.add(info);
  }

  /** The fewest tasks that a node in here has; Infinity when there is none and none to come back. */
  get lowestLoad(): number {
    if (this.#settle() !== undefined) return this.#lowest;
    return this.#lent.length > 0 ? LOAD_MAX : Infinity;
  }

  /** Afterwards the last of the lowest bucket is one with the fewest tasks. */
  #settle(): NodeInfo | undefined {
    for (; this.#lowest < this.#buckets.length; this.#lowest++) {
      const bucket = this.#buckets[this.#lowest];
      if (bucket === undefined) continue;
      for (let info = bucket.at(-1); info !== undefined; info = bucket.at(-1)) {
        const isHere = this.#at[info.index] === this.#lowest;
        if (isHere && info.taskCount === this.#lowest) return info;
        bucket.pop();
        if (isHere) this.add(info);
      }
      this.#buckets[this.#lowest] = undefined;
    }
    return undefined;
  }
}
