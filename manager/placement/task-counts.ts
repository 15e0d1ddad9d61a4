// How many tasks of one service each node has. Most services have few tasks, and there may be a hundred thousand of them:
// those have a list instead of a map.

import type { NodeInfo } from './node-info.ts';

const LISTED_MAX = 16;

export class TaskCounts {
  /** The index of a node for each task of it; unused once there is a map. */
  #list: number[] = [];
  #map: Map<number, number> | undefined;

  on({ index }: NodeInfo): number {
    if (this.#map !== undefined) return this.#map.get(index) ?? 0;
    let count = 0;
    for (const each of this.#list) if (each === index) count++;
    return count;
  }

  /** Visits every node that has tasks of it by its index, some of them more than once, with a number to add up. */
  forEach(visit: (index: number, count: number) => void): void {
    if (this.#map === undefined) for (const index of this.#list) visit(index, 1);
    else for (const [index, count] of this.#map) visit(index, count);
  }

  add({ index }: NodeInfo): void {
    if (this.#map === undefined && this.#list.length < LISTED_MAX) {
      this.#list.push(index);
      return;
    }
    if (this.#map === undefined) {
      this.#map = new Map();
      for (const each of this.#list) this.#map.set(each, (this.#map.get(each) ?? 0) + 1);
      this.#list = [];
    }
    this.#map.set(index, (this.#map.get(index) ?? 0) + 1);
  }

  remove({ index }: NodeInfo): void {
    if (this.#map === undefined) {
      const at = this.#list.indexOf(index);
      if (at >= 0) this.#list.splice(at, 1);
      return;
    }
    const left = (this.#map.get(index) ?? 0) - 1;
    if (left > 0) this.#map.set(index, left);
    else this.#map.delete(index);
  }
}
