// Tasks → nodes, as data. Pure. Tasks of one service and spec are decided as a group: eligibility is worked out once
// per node, and each task goes to the branch (spread-tree.ts) and node that has the fewest of them, ties by total load; or,
// with the strategy binpack, to the node with the least left.

import { NODE_FAILURES_MAX } from '../../core/failing-node.ts';
import type { ServiceSpec, Task } from '../../core/generated/objects.ts';
import { parsePlacementPreference } from '../../core/placement-preference.ts';
import { FILTERS } from './filters.ts';
import { failureKey, type NodeInfo, placeTask } from './node-info.ts';
import { type Candidates, candidatesOf } from './spread-tree.ts';

export interface PlacementGroup {
  readonly serviceId: string;
  readonly specVersion: number;
  readonly spec: ServiceSpec;
  readonly tasks: readonly Task[];
  /** The only node that may have them; empty or absent: any. */
  readonly nodeId?: string;
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
  const byNode = new Map(infos.map((info) => [info.node.id, info]));
  // What is bound to a node comes first: others have a choice.
  const ordered = [...groups].sort((a, b) => Number(Boolean(b.nodeId)) - Number(Boolean(a.nodeId)));
  for (const group of ordered) {
    const checks = checksOf(group);
    const bound = group.nodeId ? byNode.get(group.nodeId) : undefined;
    const among = group.nodeId ? (bound ? [bound] : []) : infos;
    const candidates = candidatesFor(group, among, checks);
    for (const task of group.tasks) {
      const info = takeBest(candidates, checks);
      if (info === undefined) {
        refuse.push({ task, reason: explainRefusal(group, among) });
        continue;
      }
      assign.push({ task, nodeId: info.node.id });
      placeTask(info, group.serviceId, group.spec);
      candidates.push(info);
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

function candidatesFor(
  group: PlacementGroup,
  infos: readonly NodeInfo[],
  checks: readonly Check[],
): Candidates {
  const { strategy, preferences } = group.spec.task.placement;
  const compare = strategy === 'binpack' ? compareForPacking : compareForSpreading;
  const ofService = (info: NodeInfo) => info.taskCountByService.get(group.serviceId) ?? 0;
  return candidatesOf(
    infos,
    new Set(infos.filter((info) => checks.every((check) => check(info)))),
    preferences.map(parsePlacementPreference),
    (a, b) => compareFailures(a, b, group) || compare(a, b, ofService) || (a.node.id < b.node.id ? -1 : 1),
    ofService,
  );
}

function checksOf({ spec, serviceId }: PlacementGroup): Check[] {
  return FILTERS.map((filter) => filter.prepare(spec, serviceId)).filter((check) => check !== undefined);
}

/** The best node that still has room; those without are dropped for the rest of the group. */
function takeBest(candidates: Candidates, checks: readonly Check[]): NodeInfo | undefined {
  for (let info = candidates.pop(); info !== undefined; info = candidates.pop())
    if (checks.every((check) => check(info))) return info;
  return undefined;
}

/** Nodes where the service keeps failing come last, whatever the strategy. */
function compareFailures(a: NodeInfo, b: NodeInfo, { serviceId, specVersion }: PlacementGroup): number {
  const key = failureKey(serviceId, specVersion);
  const isTainted = (info: NodeInfo) => Number((info.failures.get(key) ?? 0) >= NODE_FAILURES_MAX);
  return isTainted(a) - isTainted(b);
}

type CountOf = (info: NodeInfo) => number;

/** Fewer tasks of the service, then fewer tasks at all. */
function compareForSpreading(a: NodeInfo, b: NodeInfo, ofService: CountOf): number {
  return ofService(a) - ofService(b) || a.taskCount - b.taskCount;
}

/** Less that is not reserved, then more tasks. */
function compareForPacking(a: NodeInfo, b: NodeInfo): number {
  return freeShare(a) - freeShare(b) || b.taskCount - a.taskCount;
}

/** Of what is scarcer, CPU or memory: from 1, all of it, down. */
function freeShare({ node, cpuNanosFree, memoryBytesFree }: NodeInfo): number {
  const { cpuNanos, memoryBytes } = node.description.resources;
  return Math.min(cpuNanosFree / Math.max(cpuNanos, 1), memoryBytesFree / Math.max(memoryBytes, 1));
}
