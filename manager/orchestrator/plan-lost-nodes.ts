// Nodes that are down: which of them are given up, so that their tasks are replaced, and whose tasks are given up for
// good. Pure.
//
// The brake: when many nodes fall silent at once, the network or the managers are the likelier cause. In a minute no more
// than a share of all nodes is given up, and none while no other node could take its tasks.

import type { ClusterSpec, Node, Task } from '../../core/generated/objects.ts';
import { giveUpsMax, graceAtStartMs, isGivenUp, orphanAfterMs } from '../../core/node-silence.ts';
import { isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import { earliest } from '../loop.ts';
import type { TablesView } from '../store/tables.ts';

/** The time that the brake looks back. */
export const BRAKE_WINDOW_MS = 60_000;

export interface LostNodesPlan {
  readonly giveUp: readonly { readonly node: Node; readonly isCounted: boolean }[];
  /** Those that stay held, with what there is to say of them now. */
  readonly hold: readonly { readonly node: Node; readonly message: string }[];
  readonly orphan: readonly Task[];
  /** Come back then (Unix ms), even if nothing happens. */
  readonly wakeAtMs: number | undefined;
}

/** `ledSinceMs`: since when this manager leads (Unix ms). */
export function planLostNodes(
  view: TablesView,
  spec: ClusterSpec,
  nowMs: number,
  ledSinceMs = 0,
): LostNodesPlan {
  const nodes = [...view.node.values()];
  const heardAtMs = (node: Node) => heardByMs(node, spec, ledSinceMs);
  const brake = planBrake(view, nodes, { spec, nowMs, heardAtMs });
  let { wakeAtMs } = brake;
  const orphan: Task[] = [];
  for (const node of nodes) {
    if (node.status.state !== 'down' || !isGivenUp(node)) continue;
    const left = view.tasksOnNode(node.id).filter(mayBeThere);
    if (left.length === 0) continue;
    const atMs = Math.max(node.status.sinceMs + orphanAfterMs(spec), heardAtMs(node));
    if (nowMs >= atMs) orphan.push(...left);
    else wakeAtMs = earliest(wakeAtMs, atMs);
  }
  return { ...brake, orphan, wakeAtMs };
}

/** A node that fell silent under another leader may have come back since, when nobody led: it gets time to say so. */
function heardByMs({ status }: Node, spec: ClusterSpec, ledSinceMs: number): number {
  return status.sinceMs >= ledSinceMs ? 0 : ledSinceMs + graceAtStartMs(spec);
}

interface Field {
  readonly spec: ClusterSpec;
  readonly nowMs: number;
  /** When the node would have been heard of (Unix ms). */
  readonly heardAtMs: (node: Node) => number;
}

function planBrake(
  view: TablesView,
  nodes: readonly Node[],
  { spec, nowMs, heardAtMs }: Field,
): Omit<LostNodesPlan, 'orphan'> {
  const max = giveUpsMax(spec, nodes.length);
  const recent = nodes
    .map(({ status }) => status.givenUpAtMs ?? 0)
    // A clock that was set back, or another leader's, must not hold anything for longer.
    .filter((atMs) => Math.abs(nowMs - atMs) < BRAKE_WINDOW_MS)
    .sort((a, b) => a - b);
  const hasOthers = nodes.some(({ status }) => status.state === 'ready');
  const giveUp: { node: Node; isCounted: boolean }[] = [];
  const hold: { node: Node; message: string }[] = [];
  let free = hasOthers ? max - recent.length : 0;
  let wakeAtMs: number | undefined;
  const held = nodes
    .filter(({ status }) => status.state === 'down' && status.held === true)
    .sort((a, b) => a.status.sinceMs - b.status.sinceMs || (a.id < b.id ? -1 : 1));
  for (const node of held) {
    if (nowMs < heardAtMs(node)) {
      wakeAtMs = earliest(wakeAtMs, heardAtMs(node));
      continue;
    }
    const isCounted = view.tasksOnNode(node.id).some((task) => isWanted(task) && mayBeThere(task));
    if (!isCounted || free-- > 0) giveUp.push({ node, isCounted });
    else hold.push({ node, message: holdMessage(max, nodes.length, hasOthers) });
  }
  const isWaiting = hold.length > 0 && hasOthers;
  const nextMs = recent[0] ?? nowMs;
  return { giveUp, hold, wakeAtMs: isWaiting ? earliest(wakeAtMs, nextMs + BRAKE_WINDOW_MS) : wakeAtMs };
}

function holdMessage(max: number, nodeCount: number, hasOthers: boolean): string {
  const why = hasOthers
    ? `too many nodes are down: ${max} of ${nodeCount} may be given up in a minute`
    : 'no other node is ready to take its tasks';
  return `heartbeat failure; its tasks are not replaced yet: ${why}`;
}

/** It has come to the node, and nobody has heard that it ended. */
function mayBeThere({ status: { state } }: Task): boolean {
  return !isTerminal(state) && isPlaced(state);
}
