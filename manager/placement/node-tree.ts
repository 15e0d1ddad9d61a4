// Nodes as a tree by placement preferences: at each level a branch for each value of a label, nodes without it in one
// of their own. Branches that divide no further have their nodes by load. A tree is made once for all services that ask
// the same of nodes, and serves until a node changes.

import type { PlacementPreference } from '../../core/placement-preference.ts';
import { LoadQueue } from './load-queue.ts';
import { MinKeys } from './min-keys.ts';
import type { NodeInfo } from './node-info.ts';

/** A node that was taken has to be placed on and put back before the next is. */
export interface Candidates {
  take(): NodeInfo | undefined;
  putBack(): void;
}

export interface Branch {
  readonly parent: Branch | undefined;
  /** Among those of its parent. */
  readonly place: number;
  readonly children: readonly Branch[];
  /**
   * Of its children by their place: the fewest tasks that a node in one has, or less. While a group is placed, tasks of its
   * service come before that.
   */
  readonly keys: MinKeys;
  /** Nodes that may get tasks, by load; of branches without children. */
  readonly queue: LoadQueue;
  /** The same nodes, in no order. */
  readonly eligible: readonly NodeInfo[];
  /** While a group is placed: its key is not its load. */
  isChanged: boolean;
  /** While a group is placed: the branch's nodes as that wants them. */
  candidates: Candidates | undefined;
}

export interface NodeTree {
  readonly root: Branch;
  /** The last branch of each node by its index, also of those that may get no tasks. */
  readonly leafOf: readonly (Branch | undefined)[];
  /** While a group is placed: branches that are not as others expect them. */
  readonly changed: Branch[];
}

/** Of a task of the service in the keys of branches, where loads are below. */
export const TASK_WEIGHT = 2 ** 32;

/** `indexEnd` is above the index of every node. */
export function growTree(
  infos: readonly NodeInfo[],
  indexEnd: number,
  preferences: readonly PlacementPreference[],
  isEligible: (info: NodeInfo) => boolean,
): NodeTree {
  const places = LoadQueue.places(indexEnd);
  const leafOf: (Branch | undefined)[] = new Array(indexEnd).fill(undefined);
  const grow = (among: readonly NodeInfo[], depth: number, at: Pick<Branch, 'parent' | 'place'>): Branch => {
    const preference = preferences[depth];
    const groups =
      preference === undefined ? [] : [...Map.groupBy(among, ({ node }) => preference.valueOf(node))];
    groups.sort(([one], [other]) => (one < other ? -1 : 1));
    const eligible = preference === undefined ? among.filter(isEligible) : [];
    const children: Branch[] = [];
    const keys = new MinKeys(groups.length);
    const queue = new LoadQueue(places);
    const branch: Branch = {
      ...at,
      children,
      keys,
      queue,
      eligible,
      isChanged: false,
      candidates: undefined,
    };
    // The last one added comes first.
    for (const info of eligible.toReversed()) branch.queue.add(info);
    if (preference === undefined) for (const info of among) leafOf[info.index] = branch;
    for (const [place, [, group]] of groups.entries()) {
      const child = grow(group, depth + 1, { parent: branch, place });
      children.push(child);
      keys.set(place, lowestLoad(child));
    }
    return branch;
  };
  return { root: grow(infos, 0, { parent: undefined, place: 0 }), leafOf, changed: [] };
}

/**
 * The fewest tasks that a node in a branch has, or about that where a service has tasks in it; Infinity when there is none
 * that may get any.
 */
export function lowestLoad({ children, queue, keys }: Branch): number {
  if (children.length === 0) return queue.lowestLoad;
  for (;;) {
    const { best } = keys;
    const key = keys.key(best);
    if (key === Infinity) return key;
    const load = lowestLoad(children[best] as Branch);
    if (withLoad(key, load) === key) return load;
    keys.set(best, withLoad(key, load));
  }
}

/** The same tasks of the service, and another load. */
export function withLoad(key: number, load: number): number {
  return Math.floor(key / TASK_WEIGHT) * TASK_WEIGHT + load;
}

/** A node in the tree has fewer tasks than before. */
export function lighten({ leafOf }: NodeTree, info: NodeInfo): void {
  const leaf = leafOf[info.index];
  leaf?.queue.lighten(info);
  for (let child = leaf; child?.parent !== undefined; child = child.parent)
    if (child.parent.keys.key(child.place) > info.taskCount)
      child.parent.keys.set(child.place, info.taskCount);
}
