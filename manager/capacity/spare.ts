// What would be if a node were not there: which of its tasks would find no place on the others.

import { type Clock, sleep } from '../../core/clock.ts';
import type { Node, ServiceSpec } from '../../core/generated/objects.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import type { Misfit, NodeSpare } from '../../proto/generated/control.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import type { TablesView } from '../store/tables.ts';
import { type Choice, type Demand, giveBack, placeDemands } from './fit.ts';

// Works for so long at a time: what else a manager has to do goes on in between.
const WORK_MS = 5;

export interface SpareSource {
  readonly view: TablesView;
  readonly clock: Clock;
  /** What nodes have left, kept up to date by somebody else. Without it everything is counted first. */
  readonly book?: ClusterBook;
  /** In between it rests so many times as long as it worked. */
  readonly restFactor?: number;
}

/** Of each node that is not down, one after the other. */
export async function* spareOf(
  { view, clock, restFactor = 0, ...source }: SpareSource,
  signal: AbortSignal,
): AsyncIterable<NodeSpare> {
  let sinceMs = clock.elapsedMs();
  const pause = async () => {
    const workedMs = clock.elapsedMs() - sinceMs;
    if (workedMs < WORK_MS) return;
    await sleep(clock, workedMs * restFactor, signal);
    sinceMs = clock.elapsedMs();
  };
  const count = async () => {
    const counting = ClusterBook.counting(view);
    let counted = counting.next();
    for (; !counted.done; counted = counting.next()) await pause();
    return counted.value;
  };
  const book = source.book ?? (await count());
  for (const { node } of book.nodes) {
    // As it is by now.
    const { node: current } = book.node(node.id) ?? {};
    if (current === undefined || current.status.state === 'down') continue;
    yield withoutNode(view, current, { nowMs: clock.nowMs(), isSurvey: true }, book);
    await pause();
  }
}

/** Tasks of global services stay away with the node; all others have to go elsewhere. The book is as before after it. */
export function withoutNode(
  view: TablesView,
  { id, description }: Node,
  choice: Pick<Choice, 'nowMs' | 'isSurvey'>,
  book = ClusterBook.of(view),
): NodeSpare {
  const demands = demandsOf(view, id);
  const placed = placeDemands(demands, book, { ...choice, exceptNodeId: id });
  giveBack(placed, book);
  const misfits = placed
    .filter(({ missing }) => missing > 0)
    .map(({ demand, missing, reason }): Misfit => {
      const { serviceId, spec } = demand;
      return { serviceId, serviceName: spec.name, tasks: missing, reason };
    });
  const tasks = demands.reduce((total, { count }) => total + count, 0);
  return { nodeId: id, hostname: description.hostname, tasks, misfits };
}

/** The biggest first, which are the hardest to place. */
function demandsOf(view: TablesView, nodeId: string): Demand[] {
  const specs = new Map<string, { -readonly [K in keyof Demand]: Demand[K] }>();
  for (const task of view.tasksOnNode(nodeId)) {
    const spec = view.revisionOf(task)?.spec;
    const { state } = task.status;
    if (spec === undefined || isGlobal(spec.mode) || !isWanted(task)) continue;
    if (isTerminal(state) || !isPlaced(state)) continue;
    const { serviceId, specVersion } = task;
    const key = `${serviceId}.${specVersion}`;
    const known = specs.get(key) ?? { serviceId, specVersion, spec, count: 0 };
    known.count++;
    specs.set(key, known);
  }
  const size = ({ spec }: { readonly spec: ServiceSpec }) => spec.task.resources.reservations.memoryBytes;
  return [...specs.values()].sort((a, b) => size(b) - size(a) || (a.spec.name < b.spec.name ? -1 : 1));
}
