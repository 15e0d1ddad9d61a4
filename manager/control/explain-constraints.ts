// The part of `why` about constraints: how many nodes satisfy each, and what would make one do. Pure.

import { matchesConstraint, parseConstraint } from '../../core/constraint.ts';
import { takesTasks } from '../../core/eligible-node.ts';
import type { Node, ServiceSpec, Task } from '../../core/generated/objects.ts';
import type { TablesView } from '../store/tables.ts';
import type { Draft } from './explain-task.ts';

/** Of a task that no node is right for: one step for each constraint. */
export function explainConstraints(view: TablesView, task: Task, depth: number): Draft[] {
  const { state, error } = task.status;
  const spec = view.revisionOf(task)?.spec;
  if (state !== 'pending' || spec === undefined || !refusedByConstraints(error)) return [];
  const own = view.node.get(task.nodeId);
  const nodes = own === undefined ? [...view.node.values()] : [own];
  return spec.task.placement.constraints.map((text) => {
    const fitting = nodes.filter(matching(text));
    const able = fitting.filter(takesTasks).length;
    const idle = able < fitting.length ? `, of which ${able} take tasks` : '';
    const count = `${fitting.length} of ${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'}`;
    return { ok: able > 0, subject: 'constraint', depth, text: `${text}: satisfied by ${count}${idle}` };
  });
}

export function refusedByConstraints(error: string): boolean {
  return error.includes('constraints not satisfied');
}

/** What the operator can do about the constraint that the fewest nodes satisfy. `isPlanned`: the service is not there yet. */
export function changeConstraint(
  view: TablesView,
  { name, task }: ServiceSpec,
  { isPlanned = false } = {},
): string {
  const nodes = [...view.node.values()].filter(takesTasks);
  const count = (text: string) => nodes.filter(matching(text)).length;
  const [hardest = '…'] = [...task.placement.constraints].sort((a, b) => count(a) - count(b));
  const label = labelOf(hardest);
  const before =
    label === undefined ? '' : `label a node (tsswarm node update --label-add ${label} NODE) or `;
  if (isPlanned) return `${before}ask for another --constraint than '${hardest}'`;
  return `${before}change it: tsswarm service update --constraint-rm '${hardest}' ${name}`;
}

/** KEY=VALUE of the label that would satisfy it. */
function labelOf(text: string): string | undefined {
  const [, label, value] = /^\s*node\.labels\.(\S+?)\s*==\s*(.*?)\s*$/i.exec(text) ?? [];
  return label === undefined ? undefined : `${label}=${value}`;
}

function matching(text: string): (node: Node) => boolean {
  const constraint = parseConstraint(text);
  return (node) => matchesConstraint(constraint, node);
}
