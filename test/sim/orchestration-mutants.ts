// Deliberate bugs of planners and loops, as edits of the source in the process that loads it (mutants.ts). The simulated
// orchestration has to notice every one.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type FileMutant, plantNamed } from './mutants.ts';

const folder = path.join(import.meta.dirname, '../../manager');

/** How often each text is found that a mutant replaces: once, as long as it fits the source. */
export function orchestrationMutantFits(): { readonly name: string; readonly count: number }[] {
  return ORCHESTRATION_MUTANTS.map(({ name, file, find }) => ({
    name,
    count: readFileSync(path.join(folder, file), 'utf8').split(find).length - 1,
  }));
}

/** Call it before the simulation is imported. */
export function plantOrchestrationMutant(name: string): void {
  plantNamed(ORCHESTRATION_MUTANTS, folder, name);
}

/** Files are below manager/. */
export const ORCHESTRATION_MUTANTS: readonly FileMutant[] = [
  {
    name: 'a leader decides before it knows what is in its log',
    file: 'raft-host/raft-host.ts',
    find: 'const isLeader = isElected && knowsAll;',
    replace: 'const isLeader = isElected && (knowsAll || isElected);',
  },
  {
    name: 'an allocator forgets what tasks have when it begins',
    file: 'allocator/allocation.ts',
    find: 'for (const service of view.service.values()) this.#claimService(service);\n    for (const task of view.task.values())',
    replace:
      'for (const service of view.service.values()) this.#claimService(service);\n    for (const task of [...view.task.values()].slice(1e9))',
  },
  {
    name: 'addresses of tasks that have ended stay taken',
    file: 'allocator/allocation.ts',
    find: 'this.release(task.attachments, task.id, nowMs);\n    return task.attachments.length > 0;',
    replace: 'return task.attachments.length > 0 && nowMs > 0;',
  },
  {
    name: 'an allocator does not try again',
    file: 'allocator/allocator-loop.ts',
    find: 'const isRetry = this.#mayRetry || beginMs >= this.#retryAtMs;',
    replace: 'const isRetry = this.#mayRetry && beginMs < 0;',
  },
  {
    name: 'an update does not count what is being replaced',
    file: 'orchestrator/plan-update.ts',
    find: 'const free = Math.max(0, parallelism - settling.length);',
    replace: 'const free = Math.max(0, parallelism - settling.length * 0);',
  },
  {
    name: 'start-first keeps nothing',
    file: 'orchestrator/plan-update.ts',
    find: "config.order === 'start-first' ? old.find((task) => task.status.state === 'running') : undefined;",
    replace:
      "config.order === 'start-first' ? old.find((task) => task.status.state === 'failed') : undefined;",
  },
  {
    name: 'start-first stops the old task before the new one runs',
    file: 'orchestrator/plan-update.ts',
    find: "isWanted(task) && !isDirty(task, context) && task.status.state === 'running',",
    replace: 'isWanted(task) && !isDirty(task, context),',
  },
  {
    name: 'an update without progress says nothing',
    file: 'orchestrator/update-progress.ts',
    find: 'return { ...status, noProgressSinceMs: sinceMs, message };',
    replace: 'return message === undefined ? { ...status, noProgressSinceMs: sinceMs } : status;',
  },
  {
    name: 'a restarted task gets company',
    file: 'orchestrator/plan-restarts.ts',
    find: "draft.change.push({ task, desiredState: 'shutdown' });\n    const hasSuccessor",
    replace: 'const hasSuccessor',
  },
  {
    name: 'a job begins as many as it likes',
    file: 'orchestrator/plan-job.ts',
    find: 'context.service.spec.mode.replicatedJob?.maxConcurrent || wanted;',
    replace: 'wanted;',
  },
  {
    name: 'a completed slot of a job begins again',
    file: 'orchestrator/plan-job.ts',
    find: "slot.tasks.some((task) => task.status.state === 'complete' || isWanted(task)) || isFinished(slot, context)",
    replace: 'isFinished(slot, context)',
  },
  {
    name: 'drained nodes keep their tasks',
    file: 'orchestrator/plan-drain.ts',
    find: "if (node.spec.availability !== 'drain') return",
    replace: "if (node.spec.availability !== 'drain' || nowMs > 0) return",
  },
  {
    name: 'the reaper keeps all history',
    file: 'orchestrator/plan-reaping.ts',
    find: 'return [...removed, ...surplus];',
    replace: 'return surplus.length < 0 ? surplus : removed;',
  },
  {
    name: 'the reaper forgets tasks that still run',
    file: 'orchestrator/plan-reaping.ts',
    find: 'const hasLeftNode = (task: Task) => hasEnded(task) || !isKnownNode(task.nodeId);',
    replace: 'const hasLeftNode = (task: Task) => hasEnded(task) || isKnownNode(task.nodeId);',
  },
  {
    name: 'a card is given to several tasks',
    file: 'placement/node-info.ts',
    find: 'names.filter((name) => !used?.has(name)).slice(0, count)',
    replace: 'names.filter((name) => !used?.has(name) || name !== undefined).slice(0, count)',
  },
  {
    name: 'nobody counts what of a kind is given',
    file: 'placement/node-info.ts',
    find: 'return count - (genericUse.get(kind)?.count ?? 0);',
    replace: 'return count - 0 * (genericUse.get(kind)?.count ?? 0);',
  },
  {
    name: 'a card is free when its task is told to stop',
    file: 'placement/node-info.ts',
    find: 'const holders = (use.names.get(name) ?? 0) - 1;',
    replace: 'const holders = 0;',
  },
  {
    name: 'a node keeps tasks whose cards it has no more',
    file: 'orchestrator/plan-evictions.ts',
    find: 'given.count > (free.get(given.kind) ?? 0) ||\n        given.names.some((name) => !names.get(given.kind)?.includes(name)),',
    replace: 'given.count > (free.get(given.kind) ?? 1e9) && names.size > 1e9,',
  },
  {
    name: 'a node that has become smaller keeps its tasks',
    file: 'orchestrator/plan-evictions.ts',
    find: 'while (left.length > 0 && !isWithin(',
    replace: 'while (left.length > 1e9 && !isWithin(',
  },
  {
    name: 'the book does not hear that a node has become smaller',
    file: 'placement/cluster-book.ts',
    find: 'info.cpuNanosFree += after.cpuNanos - before.cpuNanos;',
    replace: 'info.cpuNanosFree += Math.max(0, after.cpuNanos - before.cpuNanos);',
  },
  {
    name: 'the scheduler forgets affinities',
    file: 'placement/filters.ts',
    find: 'together.every((counts) => counts.on(info) > 0) && apart.every((counts) => counts.on(info) === 0);',
    replace: 'together.length + apart.length >= 0 || info === undefined;',
  },
  {
    name: 'nobody asks who shuns a service',
    file: 'placement/neighbours.ts',
    find: 'required: this.#neighbours(required, shunning),',
    replace: 'required: this.#neighbours(required, []),',
  },
  {
    name: 'a scheduler that begins has not heard of services that shun others',
    file: 'placement/cluster-book.ts',
    find: 'for (const service of view.service.values()) this.noteService(service.id, service);',
    replace: '',
  },
  {
    name: 'the brake does not know what an earlier leader has given up',
    file: 'orchestrator/plan-lost-nodes.ts',
    find: 'let free = hasOthers ? max - recent.length : 0;',
    replace: 'let free = hasOthers ? max : 0;',
  },
  {
    name: 'nodes that fall silent are not held',
    file: 'dispatcher/dispatcher.ts',
    find: "const held = state === 'down';",
    replace: "const held = state !== 'down' && state === undefined;",
  },
  {
    name: 'a drain takes all tasks at once when the leader changes',
    file: 'orchestrator/plan-drain.ts',
    find: 'const isOrderly = nowMs < deadlineAtMs && !isDown;',
    replace: "const isOrderly = nowMs < deadlineAtMs && !isDown && node.status.state === 'ready';",
  },
  {
    name: 'a drain takes all tasks at once',
    file: 'orchestrator/plan-drain.ts',
    find: 'const rate = node.spec.drainRate || Number.POSITIVE_INFINITY;',
    replace: 'const rate = Number.POSITIVE_INFINITY;',
  },
  {
    name: 'a leader keeps what it has not written',
    file: 'orchestrator/service-loop.ts',
    find: 'genericResources: NONE,\n  }));',
    replace: 'genericResources: NONE,\n    eviction: undefined as unknown as string,\n  }));',
  },
  {
    name: 'a new version of a secret goes to nobody',
    file: 'dispatcher/dispatcher.ts',
    find: 'if (session.tracker.payloads.refersTo(sourceId)) this.#rounds.add(session);',
    replace: 'if (session.tracker.payloads.refersTo(session.nodeId)) this.#rounds.add(session);',
  },
  {
    name: 'nodes keep secrets that their tasks do not need any more',
    file: 'dispatcher/session-payloads.ts',
    find: 'const removedIds = [...this.#known.keys()].filter((id) => !wanted.has(id));',
    replace:
      'const removedIds = [...this.#known.keys()].filter((id) => !wanted.has(id) && id === undefined);',
  },
  {
    name: 'old versions of secrets stay',
    file: 'orchestrator/reaper-loop.ts',
    find: "if (kind === 'payload' && action === 'created') sources.add((object as Payload).sourceId);",
    replace: "if (kind === 'payload' && action === 'removed') sources.add((object as Payload).sourceId);",
  },
];
