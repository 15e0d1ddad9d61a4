// What runs on a simulated machine, and the worker that looks after it: in place of agent/worker with its engine, in virtual
// time. Containers belong to the machine and outlive the worker; what the worker has written down does unless the disk
// is lost. How a container behaves stands in its environment (LIFE=…), so that operators choose it with the spec.

import { isDeepStrictEqual } from 'node:util';
import { nextAction } from '../../agent/worker/task-step.ts';
import type { Worker } from '../../agent/worker/worker.ts';
import { hasCode, messageOf } from '../../core/errors.ts';
import type { Revision, ServiceSpec, Task, TaskState, TaskStatus } from '../../core/generated/objects.ts';
import { compareTaskStates, isTerminal } from '../../core/task-state.ts';
import type { Assignments, Payloads } from '../../proto/generated/dispatcher.ts';
import type { Chance } from '../support/faults.ts';
import type { SimProcess } from './sim-calls.ts';
import { SimFiles } from './sim-files.ts';
import type { VirtualTime } from './virtual-time.ts';

/** steady: runs until it is stopped. flaky: fails after a while. bad: fails at once. job: ends well after a while. */
export type Life = 'steady' | 'flaky' | 'bad' | 'job';

export function lifeOf({ task }: ServiceSpec): Life {
  const named = task.container.env.find((entry) => entry.startsWith('LIFE='));
  return (named?.slice('LIFE='.length) ?? 'steady') as Life;
}

export interface SimContainer {
  readonly taskId: string;
  readonly task: Task;
  /** What it was started with, and was told of limits and reservations since. */
  spec: ServiceSpec;
  exit: 'complete' | 'failed' | undefined;
  readonly listeners: Set<() => void>;
}

/** How well things go on all machines; a world changes it. */
export interface Luck {
  /** Part of the preparations that fail. */
  rejectRatio: number;
  /** Part of the flaky and job containers that fail. */
  failRatio: number;
  slowRatio: number;
}

interface JournalEntry {
  task: Task;
  revision: Revision;
  status: TaskStatus;
}

/** What survives the daemon of a machine. */
export class SimMachineState {
  readonly containers = new Map<string, SimContainer>();
  readonly journal = new Map<string, JournalEntry>();
  readonly #time: VirtualTime;
  readonly #chance: Chance;
  readonly #luck: Luck;
  readonly onStarted: (container: SimContainer) => void;

  constructor(time: VirtualTime, chance: Chance, luck: Luck, onStarted: (container: SimContainer) => void) {
    this.#time = time;
    this.#chance = chance;
    this.#luck = luck;
    this.onStarted = onStarted;
  }

  start(task: Task, spec: ServiceSpec): SimContainer {
    const container: SimContainer = { taskId: task.id, task, spec, exit: undefined, listeners: new Set() };
    this.containers.set(task.id, container);
    this.onStarted(container);
    const end = this.#end(lifeOf(spec));
    if (end !== undefined)
      this.#time.after(end.afterMs, () => {
        if (this.containers.get(task.id) === container) exit(container, end.exit);
      });
    return container;
  }

  #end(life: Life): { readonly afterMs: number; readonly exit: 'complete' | 'failed' } | undefined {
    const isFailing = this.#chance() < this.#luck.failRatio;
    if (life === 'bad') return { afterMs: this.#chance() * 2_000, exit: 'failed' };
    if (life === 'job')
      return { afterMs: 500 + this.#chance() * 12_000, exit: isFailing ? 'failed' : 'complete' };
    if (life === 'flaky' && isFailing)
      return { afterMs: this.#chance() * 60_000, exit: this.#chance() < 0.2 ? 'complete' : 'failed' };
    return undefined;
  }

  /** Everything that runs ends with the machine's power. */
  losePower(): void {
    this.containers.clear();
  }

  loseDisk(): void {
    this.containers.clear();
    this.journal.clear();
  }
}

function exit(container: SimContainer, how: 'complete' | 'failed'): void {
  container.exit ??= how;
  for (const listener of [...container.listeners]) listener();
}

export class SimWorker {
  readonly #state: SimMachineState;
  readonly #process: SimProcess;
  readonly #chance: Chance;
  readonly #luck: Luck;
  /** In memory only. */
  readonly files = new SimFiles();
  readonly #busy = new Set<string>();
  readonly #leaving = new Set<string>();
  #listener: (taskId: string, status: TaskStatus) => void = () => {};
  readonly #revisions = new Map<string, Revision>();

  constructor(state: SimMachineState, process: SimProcess, chance: Chance, luck: Luck) {
    this.#state = state;
    this.#process = process;
    this.#chance = chance;
    this.#luck = luck;
    for (const id of state.containers.keys()) if (!state.journal.has(id)) state.containers.delete(id);
    for (const [id, entry] of state.journal) {
      this.#revisions.set(entry.revision.id, entry.revision);
      this.#adopt(entry);
      this.#step(id);
    }
  }

  /** As the session wants it. */
  asWorker(): Worker {
    return {
      hearPayloads: (payloads: Payloads) => this.#hearPayloads(payloads),
      drained: () => {},
      logs: () => [],
      assign: (assignments: Assignments) => this.#assign(assignments),
      statuses: () => [...this.#state.journal].map(([id, { status }]) => [id, status]),
      onStatus: (listener: (taskId: string, status: TaskStatus) => void) => {
        this.#listener = listener;
      },
    } as unknown as Worker;
  }

  async #assign({ complete, revisions, tasks, removedTaskIds }: Assignments): Promise<void> {
    for (const revision of revisions) this.#revisions.set(revision.id, revision);
    for (const task of tasks) this.#assignTask(task);
    const wanted = new Set(tasks.map(({ id }) => id));
    const removed = complete
      ? [...this.#state.journal.keys()].filter((id) => !wanted.has(id))
      : removedTaskIds;
    for (const id of removed) this.#remove(id);
  }

  #assignTask(task: Task): void {
    const { journal } = this.#state;
    const known = journal.get(task.id);
    const revision = this.#revisions.get(`${task.serviceId}.${task.specVersion}`) ?? known?.revision;
    if (revision === undefined) throw new Error(`task ${task.id} came without its revision`);
    if (known === undefined) {
      const entry = { task, revision, status: task.status };
      journal.set(task.id, entry);
      this.#adopt(entry);
    } else {
      known.task = task;
      known.revision = revision;
      const container = this.#state.containers.get(task.id);
      if (container !== undefined) container.spec = revision.spec;
    }
    this.#step(task.id);
  }

  /** As adoptStatus has it (agent/worker/worker.ts). */
  #adopt(entry: JournalEntry): void {
    const { state } = entry.status;
    if (isTerminal(state)) return;
    const container = this.#state.containers.get(entry.task.id);
    if (container === undefined) {
      if (compareTaskStates(state, 'starting') >= 0) this.#put(entry, 'failed', 'the container is gone');
      else if (compareTaskStates(state, 'accepted') > 0)
        entry.status = { ...entry.status, state: 'accepted' };
    }
  }

  #put(entry: JournalEntry, state: TaskState, error = ''): void {
    const timestampMs = this.#process.clock.nowMs();
    const runningAtMs = state === 'running' ? timestampMs : entry.status.runningAtMs;
    entry.status = { ...entry.status, state, timestampMs, message: state, error, runningAtMs };
    this.#listener(entry.task.id, entry.status);
  }

  #after(id: string, delayMs: number, act: (entry: JournalEntry) => void): void {
    this.#busy.add(id);
    this.#process.clock.wake(delayMs, () => {
      this.#busy.delete(id);
      const entry = this.#state.journal.get(id);
      if (entry === undefined) return;
      act(entry);
      this.#step(id);
    });
  }

  #delayMs(usualMs: number): number {
    return usualMs * (0.2 + this.#chance()) * (this.#chance() < this.#luck.slowRatio ? 20 : 1);
  }

  #step(id: string): void {
    const entry = this.#state.journal.get(id);
    if (entry === undefined || this.#busy.has(id)) return;
    const action = nextAction(entry.status.state, entry.task.desiredState);
    if (action === 'accept')
      this.#after(id, 1, (now) => now.status.state === 'assigned' && this.#put(now, 'accepted'));
    else if (action === 'prepare') this.#prepare(id, entry);
    else if (action === 'start') this.#start(id, entry);
    else if (action === 'wait') this.#wait(id, entry);
    else if (action === 'shut-down') this.#stop(id, entry);
  }

  #prepare(id: string, entry: JournalEntry): void {
    if (entry.status.state === 'accepted') this.#put(entry, 'preparing');
    const isRejected = this.#chance() < this.#luck.rejectRatio;
    this.#after(id, this.#delayMs(500), (now) => {
      if (now.status.state !== 'preparing') return;
      if (isRejected) this.#put(now, 'rejected', 'no such image');
      else this.#makeFiles(now);
    });
  }

  /** What the managers have not sent yet is waited for. */
  #makeFiles(entry: JournalEntry): void {
    try {
      entry.status = { ...entry.status, files: this.files.make(entry.revision) };
      this.#put(entry, 'ready');
    } catch (error) {
      if (!hasCode(error, 'unavailable')) this.#put(entry, 'rejected', messageOf(error));
    }
  }

  #hearPayloads(payloads: Payloads): void {
    const changed = this.files.hear(payloads);
    for (const entry of this.#state.journal.values()) {
      const { revision, status, task } = entry;
      if (isTerminal(status.state) || !status.files.some(({ sourceId }) => changed.has(sourceId))) continue;
      const files = this.files.refresh(revision, status.files);
      if (isDeepStrictEqual(files, status.files)) continue;
      entry.status = { ...status, files, timestampMs: this.#process.clock.nowMs() };
      this.#listener(task.id, entry.status);
    }
  }

  #start(id: string, entry: JournalEntry): void {
    if (entry.status.state === 'ready') this.#put(entry, 'starting');
    const { containers } = this.#state;
    if (!containers.has(id)) this.#state.start(entry.task, entry.revision.spec);
    this.#after(id, this.#delayMs(300), (now) => {
      if (now.status.state !== 'starting') return;
      const container = containers.get(id);
      if (container !== undefined && container.exit === undefined) {
        this.#put(now, 'running');
        return;
      }
      containers.delete(id);
      this.#put(now, 'failed', 'it ended before it was healthy');
    });
  }

  /** Its container tells when it ends. */
  #wait(id: string, entry: JournalEntry): void {
    const container = this.#state.containers.get(id);
    const { exit: how } = container ?? { exit: 'failed' as const };
    if (how === undefined) {
      container?.listeners.clear();
      container?.listeners.add(() => this.#process.clock.wake(0, () => this.#step(id)));
      return;
    }
    this.#state.containers.delete(id);
    this.#put(entry, how, how === 'failed' ? 'task: non-zero exit (1)' : '');
  }

  #stop(id: string, { status }: JournalEntry): void {
    if (compareTaskStates(status.state, 'starting') < 0) {
      this.#after(id, 1, (now) => this.#end(now));
      return;
    }
    this.#after(id, this.#delayMs(800), (now) => this.#end(now));
  }

  #end(entry: JournalEntry): void {
    if (isTerminal(entry.status.state)) return;
    this.#state.containers.delete(entry.task.id);
    this.#put(entry, 'shutdown');
  }

  /** The managers have no such task any more. */
  #remove(id: string): void {
    this.#state.journal.delete(id);
    if (!this.#state.containers.has(id) || this.#leaving.has(id)) return;
    this.#leaving.add(id);
    this.#process.clock.wake(this.#delayMs(800), () => {
      this.#leaving.delete(id);
      if (!this.#state.journal.has(id)) this.#state.containers.delete(id);
    });
  }
}
