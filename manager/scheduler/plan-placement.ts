// Tasks → nodes, as data. Pure. Tasks of one service and spec are decided as a group: eligibility is worked out once
// per node, and each task goes to the node that has the fewest of them (spread), ties by total load.

import type { ServiceSpec, Task } from '../../core/generated/objects.ts';
import { FILTERS } from './filters.ts';
import { FAILURES_MAX, failureKey, type NodeInfo, placeTask } from './node-info.ts';

export interface PlacementGroup {
  readonly serviceId: string;
  readonly specVersion: number;
  readonly spec: ServiceSpec;
  readonly tasks: readonly Task[];
}

export interface PlacementPlan {
  readonly assign: readonly { readonly task: Task; readonly nodeId: string }[];
  /** Tasks that fit nowhere, with the filters' reasons. */
  readonly refuse: readonly { readonly task: Task; readonly reason: string }[];
}

type Check = (info: NodeInfo) => boolean;

/** Decides for all groups; `infos` are booked as it goes, so that later groups see what earlier ones took. */
export function planPlacement(groups: readonly PlacementGroup[], infos: readonly NodeInfo[]): PlacementPlan {
  const assign: { task: Task; nodeId: string }[] = [];
  const refuse: { task: Task; reason: string }[] = [];
  for (const group of groups) {
    const checks = checksOf(group);
    const heap = new NodeHeap(
      infos.filter((info) => checks.every((check) => check(info))),
      group,
    );
    for (const task of group.tasks) {
      const info = takeBest(heap, checks);
      if (info === undefined) {
        refuse.push({ task, reason: explainRefusal(group, infos) });
        continue;
      }
      assign.push({ task, nodeId: info.node.id });
      placeTask(info, group.serviceId, group.spec);
      heap.push(info);
    }
  }
  return { assign, refuse };
}

/** "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)", the commonest first. */
export function explainRefusal(group: PlacementGroup, infos: readonly NodeInfo[]): string {
  const prepared = FILTERS.map((filter) => ({
    filter,
    check: filter.prepare(group.spec, group.serviceId) ?? (() => true),
    refused: 0,
  }));
  for (const info of infos) {
    const first = prepared.find(({ check }) => !check(info));
    if (first !== undefined) first.refused++;
  }
  const reasons = prepared
    .filter(({ refused }) => refused > 0)
    .sort((a, b) => b.refused - a.refused)
    .map(({ filter, refused }) => filter.explain(refused));
  return reasons.length === 0 ? 'no suitable node' : `no suitable node (${reasons.join('; ')})`;
}

function checksOf({ spec, serviceId }: PlacementGroup): Check[] {
  return FILTERS.map((filter) => filter.prepare(spec, serviceId)).filter((check) => check !== undefined);
}

/** The best node that still has room; those without are dropped for the rest of the group. */
function takeBest(heap: NodeHeap, checks: readonly Check[]): NodeInfo | undefined {
  for (let info = heap.pop(); info !== undefined; info = heap.pop())
    if (checks.every((check) => check(info))) return info;
  return undefined;
}

/** A binary heap, best node first. A node is taken out, changed and put back. */
class NodeHeap {
  readonly #items: NodeInfo[] = [];
  readonly #group: PlacementGroup;

  constructor(infos: readonly NodeInfo[], group: PlacementGroup) {
    this.#group = group;
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
    return compareNodes(this.#items[a] as NodeInfo, this.#items[b] as NodeInfo, this.#group) < 0;
  }

  #swap(a: number, b: number): void {
    const items = this.#items;
    [items[a], items[b]] = [items[b] as NodeInfo, items[a] as NodeInfo];
  }
}

/** Nodes where the service keeps failing come last; then fewer tasks of the service, fewer tasks at all, the id. */
function compareNodes(a: NodeInfo, b: NodeInfo, group: PlacementGroup): number {
  const key = failureKey(group.serviceId, group.specVersion);
  const isTainted = (info: NodeInfo) => Number((info.failures.get(key) ?? 0) >= FAILURES_MAX);
  const ofService = (info: NodeInfo) => info.taskCountByService.get(group.serviceId) ?? 0;
  return (
    isTainted(a) - isTainted(b) ||
    ofService(a) - ofService(b) ||
    a.taskCount - b.taskCount ||
    (a.node.id < b.node.id ? -1 : 1)
  );
}
