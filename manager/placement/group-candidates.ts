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
    const { changed } = this.#tree;
    for (let branch = changed.pop(); branch !== undefined; branch = changed.pop()) {
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
    this.#tree.changed.push(branch);
  }

  /** `weight` is that of tasks in a leaf. */
  #count(leaf: Branch, weight: number): void {
    for (let branch = leaf; branch.parent !== undefined; branch = branch.parent) {
      this.#change(branch);
      branch.parent.keys.raise(branch.place, weight);
    }
  }
}

/** Above the number of tasks of a service on a node. */
const FAILING_RANK = 2 ** 32;

interface Used {
  readonly info: NodeInfo;
  /** Tasks of the service on it; where that keeps failing, with FAILING_RANK. */
  rank: number;
}

/**
 * Nodes that have tasks of the service or let them fail, in rounds: in each, every node of the lowest rank gets one more
 * task, and so the next rank.
 */
class UsedLeaf implements Candidates {
  readonly #hasRoom: Check;
  #round: readonly Used[] = [];
  /** Whose turn it is in the round. */
  #at = 0;
  /** By their rank. */
  readonly #later = new Map<number, Used[]>();

  constructor({ queue }: Branch, { counts, hasRoom, isFailing }: GroupWishes) {
    this.#hasRoom = hasRoom;
    for (const info of queue.lent)
      this.#defer({ info, rank: counts.on(info) + (isFailing(info) ? FAILING_RANK : 0) });
  }

  take(): NodeInfo | undefined {
    do
      for (; this.#at < this.#round.length; this.#at++) {
        const { info } = this.#round[this.#at] as Used;
        if (this.#hasRoom(info)) return info;
      }
    while (this.#startRound());
    return undefined;
  }

  putBack(): void {
    const used = this.#round[this.#at++];
    if (used === undefined) return;
    used.rank++;
    this.#defer(used);
  }

  #defer(used: Used): void {
    const same = this.#later.get(used.rank);
    if (same !== undefined) same.push(used);
    else this.#later.set(used.rank, [used]);
  }

  /** False when there is no node left. */
  #startRound(): boolean {
    let lowest = Infinity;
    for (const rank of this.#later.keys()) if (rank < lowest) lowest = rank;
    const round = this.#later.get(lowest);
    if (round === undefined) return false;
    this.#later.delete(lowest);
    this.#round = round.sort((a, b) => a.info.taskCount - b.info.taskCount || a.info.index - b.info.index);
    this.#at = 0;
    return true;
  }
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
