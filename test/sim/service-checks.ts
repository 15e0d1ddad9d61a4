// What every service may count on after every entry of the log. The floor of an update, as the planner promises it: of the
// tasks that ran, an update that stops first takes away no more at once than its parallelism, until their successors run
// or have failed; one that starts first takes none away before its successor runs.

import type { Service, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal, isJob } from '../../core/service-mode.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import type { StoreEvent } from '../../manager/store/apply-entry.ts';
import type { TablesView } from '../../manager/store/tables.ts';

type Check = (condition: boolean, rule: string, message: () => string) => void;
type Place = number | string;

interface Known {
  /** Specs by the entry that brought them, oldest first; what is too old to matter is forgotten. */
  specs: { readonly index: number; readonly spec: ServiceSpec }[];
  /** Places that updates have taken down and that have not come up again, with the spec version of the update. */
  readonly down: Map<Place, number>;
  mayDouble: boolean;
}

const SPECS_KEPT = 8;

export class ServiceChecks {
  readonly #check: Check;
  readonly #known = new Map<string, Known>();
  /** Task → the entry by which it had run, and had ended. */
  readonly #ranAt = new Map<string, number>();
  readonly #endedAt = new Map<string, number>();

  constructor(check: Check) {
    this.#check = check;
  }

  committed(view: TablesView, index: number, decidedAt: number, events: readonly StoreEvent[]): void {
    const touched = new Map<string, StoreEvent[]>();
    for (const event of events) {
      if (event.kind === 'service') this.#noteService(event, index);
      if (event.kind !== 'task') continue;
      this.#noteTask(event, index);
      const { serviceId } = event.object as Task;
      const own = touched.get(serviceId);
      if (own === undefined) touched.set(serviceId, [event]);
      else own.push(event);
    }
    for (const [serviceId, own] of touched) {
      const known = this.#known.get(serviceId);
      const service = view.service.get(serviceId);
      if (known === undefined || service === undefined) continue;
      const tasks = view.tasksOfService(serviceId);
      this.#checkPlaces(service, tasks, known);
      if (own.some(({ action }) => action === 'created')) this.#checkCount(tasks, known, decidedAt);
      if (isJob(service.spec.mode)) this.#checkCompletions(service, tasks);
      else this.#checkFloor({ view, service, tasks, known, events: own, decidedAt });
    }
  }

  #noteService({ action, object }: StoreEvent, index: number): void {
    const { id, spec } = object as Service;
    if (action === 'removed') {
      this.#known.delete(id);
      return;
    }
    const known = this.#known.get(id) ?? { specs: [], down: new Map(), mayDouble: false };
    this.#known.set(id, known);
    if (known.specs.at(-1)?.spec === spec) return;
    known.specs = [...known.specs.slice(-SPECS_KEPT), { index, spec }];
    known.mayDouble ||= [spec.update, spec.rollback].some(({ order }) => order === 'start-first');
  }

  #noteTask({ action, object, previous }: StoreEvent, index: number): void {
    const task = object as Task;
    if (action === 'removed') {
      this.#ranAt.delete(task.id);
      this.#endedAt.delete(task.id);
      return;
    }
    const { state } = task.status;
    const before = (previous as Task | undefined)?.status.state;
    if (state === 'running' && before !== 'running') this.#ranAt.set(task.id, index);
    if (isTerminal(state) && (before === undefined || !isTerminal(before))) this.#endedAt.set(task.id, index);
  }

  /** No two tasks of one slot or node are meant to run, but for an update that starts first, and one that is to leave (B14). */
  #checkPlaces({ spec }: Service, tasks: readonly Task[], { mayDouble }: Known): void {
    const live = new Map<Place, Task[]>();
    for (const task of tasks) {
      if (!isMeantToRun(task)) continue;
      const place = placeOf(task);
      live.set(place, [...(live.get(place) ?? []), task]);
    }
    for (const [place, own] of live)
      this.#check(
        own.length <= (mayDouble || own.some(({ eviction }) => eviction !== undefined) ? 2 : 1),
        'one a slot',
        () => `${spec.name} has ${own.map(({ id }) => id)} in slot ${place}`,
      );
  }

  /** New tasks fill no more slots than some spec wants that their writer may have seen. */
  #checkCount(tasks: readonly Task[], { specs }: Known, decidedAt: number): void {
    const current = specs.filter(
      ({ index }, position) =>
        index > decidedAt || (specs[position + 1]?.index ?? Number.POSITIVE_INFINITY) > decidedAt,
    );
    if (current.some(({ spec }) => isGlobal(spec.mode))) return;
    const live = tasks.filter((task) => isWanted(task) && !isTerminal(task.status.state));
    const slots = new Set(live.map(placeOf));
    const most = Math.max(...current.map(({ spec }) => wantedReplicas(spec)));
    this.#check(slots.size <= most, 'count', () => `${slots.size} slots are filled, ${most} are wanted`);
    const { replicatedJob } = current.at(-1)?.spec.mode ?? {};
    if (replicatedJob === undefined) return;
    const atOnce = Math.max(...current.map(({ spec }) => atOnceOf(spec)));
    this.#check(live.length <= atOnce, 'at once', () => `${live.length} of a job run, ${atOnce} may`);
  }

  /** What a job has done counts once. */
  #checkCompletions({ spec, specVersion }: Service, tasks: readonly Task[]): void {
    const done = tasks.filter(
      (task) =>
        task.specVersion === specVersion &&
        task.status.state === 'complete' &&
        task.desiredState === 'complete',
    );
    const places = new Set(done.map(placeOf));
    this.#check(places.size === done.length, 'completions', () => `${spec.name} has completed a slot twice`);
    const { replicatedJob } = spec.mode;
    if (replicatedJob !== undefined)
      this.#check(
        [...places].every((place) => Number(place) <= replicatedJob.totalCompletions || spec.stopped) ||
          tasks.some(({ desiredState }) => desiredState === 'remove'),
        'completions',
        () => `${spec.name} has completed more than was asked for`,
      );
  }

  #checkFloor(entry: {
    readonly view: TablesView;
    readonly service: Service;
    readonly tasks: readonly Task[];
    readonly known: Known;
    readonly events: readonly StoreEvent[];
    readonly decidedAt: number;
  }): void {
    const { service, tasks, known, events, decidedAt } = entry;
    for (const [place, version] of known.down) {
      const own = tasks.filter((task) => placeOf(task) === place);
      const isUp = own.some((task) => isMeantToRun(task) && task.status.state === 'running');
      const hasFailed = own.some(
        (task) =>
          task.specVersion === version && isTerminal(task.status.state) && task.status.state !== 'shutdown',
      );
      if (isUp || hasFailed || !own.some(isWanted)) known.down.delete(place);
    }
    const taken = events.filter((event) => this.#isTakenByUpdate(event, entry));
    if (taken.length === 0) return;
    const { update, rollback } = service.spec;
    const config = service.updateStatus?.state.startsWith('rollback') ? rollback : update;
    for (const { object } of taken) {
      const task = object as Task;
      const isServed = tasks.some(
        (other) =>
          other.id !== task.id && placeOf(other) === placeOf(task) && this.#ranWhenDecided(other, decidedAt),
      );
      if (isServed) continue;
      known.down.set(placeOf(task), service.specVersion);
      this.#check(
        config.order === 'stop-first',
        'floor',
        () => `${task.id} of ${service.spec.name} is stopped before its successor runs`,
      );
    }
    const down = [...known.down.values()].filter((version) => version === service.specVersion).length;
    const most = config.parallelism || Number.POSITIVE_INFINITY;
    this.#check(
      down <= most,
      'floor',
      () => `an update of ${service.spec.name} has taken ${down} tasks down, ${most} at once are allowed`,
    );
  }

  /** A task that ran is stopped, and neither it nor its node nor its service gives another reason. */
  #isTakenByUpdate(
    { object, previous }: StoreEvent,
    { view, service, decidedAt }: { view: TablesView; service: Service; decidedAt: number },
  ): boolean {
    const [task, before] = [object as Task, previous as Task | undefined];
    if (before === undefined || before.desiredState !== 'running' || task.desiredState !== 'shutdown')
      return false;
    if (task.eviction !== undefined || service.spec.stopped) return false;
    if (task.specVersion === service.specVersion || !this.#ranWhenDecided(task, decidedAt)) return false;
    const node = view.node.get(task.nodeId);
    if (node === undefined || node.meta.version > decidedAt) return false;
    if (node.status.state === 'down' || node.spec.availability !== 'active') return false;
    // A global service leaves nodes that do not fit any more.
    return !isGlobal(service.spec.mode);
  }

  #ranWhenDecided({ id }: Task, decidedAt: number): boolean {
    const [ranAt, endedAt] = [this.#ranAt.get(id), this.#endedAt.get(id)];
    return ranAt !== undefined && ranAt <= decidedAt && (endedAt === undefined || endedAt > decidedAt);
  }
}

/** Not only prepared, and not ended. */
function isMeantToRun(task: Task): boolean {
  return isWanted(task) && task.desiredState !== 'ready' && !isTerminal(task.status.state);
}

function placeOf({ slot, nodeId }: Task): Place {
  return slot > 0 ? slot : nodeId;
}

function atOnceOf({ mode }: ServiceSpec): number {
  return mode.replicatedJob?.maxConcurrent || (mode.replicatedJob?.totalCompletions ?? 0);
}
