// The nodes for tasks of one service, the best first. A task goes to the branch of the tree with the fewest tasks of the
// service, and so on down; there to the node with the fewest of the service, then the fewest at all. With the strategy
// binpack it goes to the node with the least left. Nodes where the service keeps failing come last.

import type { Check } from './filters.ts';
import { Heap } from './heap.ts';
import type { NodeInfo } from './node-info.ts';
import {
  type Branch,
  type Candidates,
  lowestLoad,
  type NodeTree,
  TASK_WEIGHT,
  withLoad,
} from './node-tree.ts';
import type { TaskCounts } from './task-counts.ts';

export interface GroupWishes {
  /** Of the service. */
  readonly counts: TaskCounts;
  /** Whether a node has room, of whatever kind, for one more. */
  readonly hasRoom: Check;
  readonly isFailing: Check;
  readonly isPacked: boolean;
}

export class GroupCandidates implements Candidates, Disposable {
  readonly #wishes: GroupWishes;
  readonly #tree: NodeTree;
  /** Branches whose keys are not their load, and that may lack nodes for as long as this works. */
  readonly #changed: Branch[] = [];
  /** Where the one that was taken last is. */
  #leaf: Branch;

  constructor(tree: NodeTree, wishes: GroupWishes) {
    this.#tree = tree;
    this.#wishes = wishes;
    this.#leaf = tree.root;
    if (tree.root.children.length === 0) return;
    wishes.counts.forEach((index, count) => {
      const leaf = tree.leafOf[index];
      if (leaf !== undefined) this.#count(leaf, count * TASK_WEIGHT);
    });
  }

  take(): NodeInfo | undefined {
    return this.#takeFrom(this.#tree.root);
  }

  putBack(): void {
    this.#leaf.candidates?.putBack();
    this.#count(this.#leaf, TASK_WEIGHT);
  }

  /** Gives the tree back as others expect it. */
  [Symbol.dispose](): void {
    for (const branch of this.#changed) {
      branch.isChanged = false;
      branch.candidates = undefined;
      branch.queue.giveBack();
      // Of branches further up it is found out when their turn comes.
      const load = branch.children.length === 0 ? branch.queue.lowestLoad : 0;
      branch.parent?.keys.set(branch.place, load);
    }
  }

  #takeFrom(branch: Branch): NodeInfo | undefined {
    const { keys, children } = branch;
    if (children.length === 0) return this.#takeFromLeaf(branch);
    for (let place = keys.best; keys.key(place) !== Infinity; place = keys.best) {
      const child = children[place] as Branch;
      const key = keys.key(place);
      // What other trees have placed there meanwhile is found out here.
      const now = withLoad(key, lowestLoad(child));
      if (now === key) {
        const info = this.#takeFrom(child);
        if (info !== undefined) return info;
      }
      keys.set(place, now === key ? Infinity : now);
      this.#change(child);
    }
    return undefined;
  }

  #takeFromLeaf(branch: Branch): NodeInfo | undefined {
    this.#leaf = branch;
    this.#change(branch);
    if (branch.candidates === undefined) {
      const { isPacked } = this.#wishes;
      const fresh = isPacked ? undefined : this.#takeFresh(branch);
      if (fresh !== undefined) return fresh;
      branch.candidates = isPacked
        ? new PackedLeaf(branch, this.#wishes)
        : new UsedLeaf(branch, this.#wishes);
    }
    return branch.candidates.take();
  }

  /** The one with the fewest tasks of those that have none of the service and do not let them fail. */
  #takeFresh({ queue }: Branch): NodeInfo | undefined {
    const { counts, hasRoom, isFailing } = this.#wishes;
    for (let info = queue.take(); info !== undefined; info = queue.take())
      if (hasRoom(info) && counts.on(info) === 0 && !isFailing(info)) return info;
    return undefined;
  }

  #change(branch: Branch): void {
    if (branch.isChanged) return;
    branch.isChanged = true;
    this.#changed.push(branch);
  }

  /** `weight` is that of tasks in a leaf. */
  #count(leaf: Branch, weight: number): void {
    for (let branch = leaf; branch.parent !== undefined; branch = branch.parent) {
      this.#change(branch);
      branch.parent.keys.raise(branch.place, weight);
    }
  }
}

/** Nodes that have tasks of the service or let them fail. */
class UsedLeaf implements Candidates {
  readonly #nodes: Heap<Used>;
  readonly #hasRoom: Check;

  constructor({ queue }: Branch, { counts, hasRoom, isFailing }: GroupWishes) {
    this.#hasRoom = hasRoom;
    const used = queue.lent.map((info) => ({ info, count: counts.on(info), isFailing: isFailing(info) }));
    this.#nodes = new Heap(used, compareUsed);
  }

  take(): NodeInfo | undefined {
    let best = this.#nodes.best;
    for (; best !== undefined && !this.#hasRoom(best.info); best = this.#nodes.best) this.#nodes.dropBest();
    return best?.info;
  }

  putBack(): void {
    const { best } = this.#nodes;
    if (best === undefined) return;
    best.count++;
    this.#nodes.settleBest();
  }
}

interface Used {
  readonly info: NodeInfo;
  readonly isFailing: boolean;
  /** Of tasks of the service. */
  count: number;
}

function compareUsed(a: Used, b: Used): number {
  return (
    Number(a.isFailing) - Number(b.isFailing) ||
    a.count - b.count ||
    a.info.taskCount - b.info.taskCount ||
    a.info.index - b.info.index
  );
}

class PackedLeaf implements Candidates {
  readonly #nodes: Heap<NodeInfo>;
  readonly #hasRoom: Check;

  constructor({ eligible }: Branch, { hasRoom, isFailing }: GroupWishes) {
    this.#hasRoom = hasRoom;
    // Less that is not reserved, then more tasks.
    this.#nodes = new Heap(
      eligible,
      (a, b) =>
        Number(isFailing(a)) - Number(isFailing(b)) ||
        freeShare(a) - freeShare(b) ||
        b.taskCount - a.taskCount ||
        a.index - b.index,
    );
  }

  take(): NodeInfo | undefined {
    let best = this.#nodes.best;
    for (; best !== undefined && !this.#hasRoom(best); best = this.#nodes.best) this.#nodes.dropBest();
    return best;
  }

  putBack(): void {
    this.#nodes.settleBest();
  }
}

/** Of what is scarcer, CPU or memory: from 1, all of it, down. */
function freeShare({ node, cpuNanosFree, memoryBytesFree }: NodeInfo): number {
  const { cpuNanos, memoryBytes } = node.description.resources;
  return Math.min(cpuNanosFree / Math.max(cpuNanos, 1), memoryBytesFree / Math.max(memoryBytes, 1));
}
