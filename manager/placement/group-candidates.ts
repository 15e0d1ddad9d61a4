// The nodes for tasks of one service, the best first. A task goes to the branch of the tree with the fewest tasks of the
// service, and so on down; there to the node with the fewest of the service, then the fewest at all. With the strategy
// binpack it goes to the node with the least left. Nodes where the service keeps failing come last.

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
  readonly hasRoom: (info: NodeInfo) => boolean;
  readonly isFailing: (info: NodeInfo) => boolean;
  readonly isPacked: boolean;
}

export class GroupCandidates implements Candidates, Disposable {
  readonly #wishes: GroupWishes;
  readonly #tree: NodeTree;
  /** Nodes that the tree is without for as long as this works. */
  readonly #borrowed: NodeInfo[] = [];
  /** Branches whose keys are not their load. */
  readonly #changed: Branch[] = [];
  /** Where the one that was taken last is. */
  #leaf: Branch;

  constructor(tree: NodeTree, wishes: GroupWishes) {
    this.#tree = tree;
    this.#wishes = wishes;
    this.#leaf = tree.root;
    if (tree.root.children.length === 0) return;
    for (const [info, count] of wishes.counts.entries())
      for (let branch = tree.leafOf[info.index]; branch?.parent !== undefined; branch = branch.parent)
        this.#count(branch, count);
  }

  take(): NodeInfo | undefined {
    return this.#takeFrom(this.#tree.root);
  }

  putBack(): void {
    this.#leaf.candidates?.putBack();
    for (let branch = this.#leaf; branch.parent !== undefined; branch = branch.parent) this.#count(branch, 1);
  }

  /** Gives the tree back as others expect it. */
  [Symbol.dispose](): void {
    // Backwards, so that of those with the same load the one that was first is again.
    for (let at = this.#borrowed.length - 1; at >= 0; at--) {
      const info = this.#borrowed[at] as NodeInfo;
      this.#tree.leafOf[info.index]?.queue.giveBack(info);
    }
    for (const branch of this.#changed) {
      branch.isChanged = false;
      branch.candidates = undefined;
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
    if (branch.candidates === undefined) {
      branch.candidates = this.#wishes.isPacked
        ? new PackedLeaf(branch, this.#wishes)
        : new SpreadLeaf(branch, this.#wishes, this.#borrowed);
      this.#change(branch);
    }
    this.#leaf = branch;
    return branch.candidates.take();
  }

  #change(branch: Branch): void {
    if (branch.isChanged) return;
    branch.isChanged = true;
    this.#changed.push(branch);
  }

  #count(branch: Branch, tasks: number): void {
    const { parent, place } = branch;
    if (parent === undefined) return;
    this.#change(branch);
    parent.keys.set(place, parent.keys.key(place) + tasks * TASK_WEIGHT);
  }
}

class SpreadLeaf implements Candidates {
  readonly #branch: Branch;
  readonly #wishes: GroupWishes;
  readonly #borrowed: NodeInfo[];
  /** Of those, the ones that have tasks of the service or let them fail; ordered when it comes to them. */
  readonly #used: Used[] = [];
  #rest: Heap<Used> | undefined;
  /** The one that was taken last. */
  #taken: Used | undefined;

  constructor(branch: Branch, wishes: GroupWishes, borrowed: NodeInfo[]) {
    this.#branch = branch;
    this.#wishes = wishes;
    this.#borrowed = borrowed;
  }

  take(): NodeInfo | undefined {
    if (this.#rest === undefined) {
      this.#taken = this.#takeFresh();
      if (this.#taken !== undefined) return this.#taken.info;
      this.#rest = new Heap(this.#used, compareUsed);
    }
    do this.#taken = this.#rest.pop();
    while (this.#taken !== undefined && !this.#wishes.hasRoom(this.#taken.info));
    return this.#taken?.info;
  }

  putBack(): void {
    if (this.#taken === undefined) return;
    this.#taken.count++;
    if (this.#rest === undefined) this.#used.push(this.#taken);
    else this.#rest.push(this.#taken);
  }

  /** The one with the fewest tasks of those that have none of the service. */
  #takeFresh(): Used | undefined {
    const { counts, hasRoom, isFailing } = this.#wishes;
    for (;;) {
      const info = this.#branch.queue.take();
      if (info === undefined) return undefined;
      this.#borrowed.push(info);
      if (!hasRoom(info)) continue;
      const found = { info, count: counts.on(info), isFailing: isFailing(info) };
      if (found.count === 0 && !found.isFailing) return found;
      this.#used.push(found);
    }
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
  readonly #wishes: GroupWishes;
  #taken: NodeInfo | undefined;

  constructor({ eligible }: Branch, wishes: GroupWishes) {
    this.#wishes = wishes;
    const { isFailing } = wishes;
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
    do this.#taken = this.#nodes.pop();
    while (this.#taken !== undefined && !this.#wishes.hasRoom(this.#taken));
    return this.#taken;
  }

  putBack(): void {
    if (this.#taken !== undefined) this.#nodes.push(this.#taken);
  }
}

/** Of what is scarcer, CPU or memory: from 1, all of it, down. */
function freeShare({ node, cpuNanosFree, memoryBytesFree }: NodeInfo): number {
  const { cpuNanos, memoryBytes } = node.description.resources;
  return Math.min(cpuNanosFree / Math.max(cpuNanos, 1), memoryBytesFree / Math.max(memoryBytes, 1));
}
