// Nodes as a tree by placement preferences: at each level a branch for each value of a label, nodes without it in one
// of their own. A task goes to the branch with the fewest of its service, and so on down to a heap of nodes.

import type { PlacementPreference } from '../../core/placement-preference.ts';
import { NodeHeap, type NodeOrder } from './node-heap.ts';
import type { NodeInfo } from './node-info.ts';

export interface Candidates {
  /** Takes the best node out; undefined when there is none. */
  pop(): NodeInfo | undefined;
  /** Puts a node back that was given a task. */
  push(info: NodeInfo): void;
}

/** `countOf` is how many tasks of the service a node has; those of all nodes count, also where none can be added. */
export function candidatesOf(
  all: readonly NodeInfo[],
  eligible: ReadonlySet<NodeInfo>,
  preferences: readonly PlacementPreference[],
  order: NodeOrder,
  countOf: (info: NodeInfo) => number,
): Candidates {
  const [preference, ...deeper] = preferences;
  if (preference === undefined)
    return new NodeHeap(
      all.filter((info) => eligible.has(info)),
      order,
    );
  const branches = new Set<Branch>();
  const branchOf = new Map<NodeInfo, Branch>();
  for (const [value, infos] of Map.groupBy(all, ({ node }) => preference.valueOf(node))) {
    const branch: Branch = {
      value,
      tasks: infos.reduce((sum, info) => sum + countOf(info), 0),
      candidates: candidatesOf(infos, eligible, deeper, order, countOf),
    };
    branches.add(branch);
    for (const info of infos) branchOf.set(info, branch);
  }
  return new SpreadLevel(branches, branchOf, countOf);
}

interface Branch {
  readonly value: string;
  tasks: number;
  readonly candidates: Candidates;
}

class SpreadLevel implements Candidates {
  /** Those that have candidates left. */
  readonly #branches: Set<Branch>;
  readonly #branchOf: ReadonlyMap<NodeInfo, Branch>;
  readonly #countOf: (info: NodeInfo) => number;
  /** Of the node that was taken out last. */
  #countBefore = 0;

  constructor(
    branches: Set<Branch>,
    branchOf: ReadonlyMap<NodeInfo, Branch>,
    countOf: (info: NodeInfo) => number,
  ) {
    this.#branches = branches;
    this.#branchOf = branchOf;
    this.#countOf = countOf;
  }

  pop(): NodeInfo | undefined {
    while (this.#branches.size > 0) {
      const best = [...this.#branches].reduce((least, other) =>
        other.tasks < least.tasks || (other.tasks === least.tasks && other.value < least.value)
          ? other
          : least,
      );
      const info = best.candidates.pop();
      if (info !== undefined) {
        this.#countBefore = this.#countOf(info);
        return info;
      }
      this.#branches.delete(best);
    }
    return undefined;
  }

  push(info: NodeInfo): void {
    const branch = this.#branchOf.get(info);
    if (branch === undefined) return;
    branch.tasks += this.#countOf(info) - this.#countBefore;
    branch.candidates.push(info);
    this.#branches.add(branch);
  }
}
