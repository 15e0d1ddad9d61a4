// Nodes in the order in which they are to get tasks.

import type { NodeInfo } from './node-info.ts';

/** Negative when the first is better. */
export type NodeOrder = (a: NodeInfo, b: NodeInfo) => number;

/** A binary heap, best node first. A node is taken out, changed and put back. */
export class NodeHeap {
  readonly #items: NodeInfo[] = [];
  readonly #order: NodeOrder;

  constructor(infos: readonly NodeInfo[], order: NodeOrder) {
    this.#order = order;
    for (const info of infos) this.push(info);
  }

  push(info: NodeInfo): void {
    const items = this.#items;
    items.push(info);
    for (let child = items.length - 1; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!this.#isBefore(child, parent)) break;
      this.#swap(child, parent);
      child = parent;
    }
  }

  pop(): NodeInfo | undefined {
    const items = this.#items;
    if (items.length === 0) return undefined;
    this.#swap(0, items.length - 1);
    const best = items.pop();
    for (let parent = 0; ; ) {
      const [left, right] = [2 * parent + 1, 2 * parent + 2];
      let smallest = parent;
      if (left < items.length && this.#isBefore(left, smallest)) smallest = left;
      if (right < items.length && this.#isBefore(right, smallest)) smallest = right;
      if (smallest === parent) return best;
      this.#swap(parent, smallest);
      parent = smallest;
    }
  }

  #isBefore(a: number, b: number): boolean {
    return this.#order(this.#items[a] as NodeInfo, this.#items[b] as NodeInfo) < 0;
  }

  #swap(a: number, b: number): void {
    const items = this.#items;
    [items[a], items[b]] = [items[b] as NodeInfo, items[a] as NodeInfo];
  }
}
