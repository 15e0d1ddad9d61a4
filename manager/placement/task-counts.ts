// How many tasks of one service each node has. Most services have few tasks, and there may be a hundred thousand of them:
// those have a list instead of a map.

import type { NodeInfo } from './node-info.ts';

const LISTED_MAX = 16;

export class TaskCounts {
  /** A node for each task of it; unused once there is a map. */
  #list: NodeInfo[] = [];
  #map: Map<NodeInfo, number> | undefined;

  on(info: NodeInfo): number {
    if (this.#map !== undefined) return this.#map.get(info) ?? 0;
    let count = 0;
    for (const each of this.#list) if (each === info) count++;
    return count;
  }

  /** Every node that has tasks of it, some of them more than once, with a number to add up. */
  entries(): Iterable<readonly [info: NodeInfo, count: number]> {
    return this.#map ?? this.#list.map((info) => [info, 1] as const);
  }

  add(info: NodeInfo): void {
    if (this.#map === undefined && this.#list.length < LISTED_MAX) {
      this.#list.push(info);
      return;
    }
    if (this.#map === undefined) {
      this.#map = new Map();
      for (const each of this.#list) this.#map.set(each, (this.#map.get(each) ?? 0) + 1);
      this.#list = [];
    }
    this.#map.set(info, (this.#map.get(info) ?? 0) + 1);
  }

  remove(info: NodeInfo): void {
    if (this.#map === undefined) {
      const at = this.#list.indexOf(info);
      if (at >= 0) this.#list.splice(at, 1);
      return;
    }
    const left = (this.#map.get(info) ?? 0) - 1;
    if (left > 0) this.#map.set(info, left);
    else this.#map.delete(info);
  }
}
