// The only place where a table changes: applying one entry of the log. Deterministic and total, so that tables are
// equal on all managers at equal index.

import { assert } from '../../core/assert.ts';
import type { Meta, Task } from '../../core/generated/objects.ts';
import {
  type Change,
  ChangeCodec,
  emptyChange,
  type Guard,
  type LogEntry,
} from '../../proto/generated/log.ts';
import { encode } from '../../proto/wire.ts';
import { isNamed, KINDS, type Kind, type Kinds, type NamedKind, type StoredObject } from './tables.ts';
import { PackedTasks, rowsOf, TaskEvent } from './task-events.ts';

/** One object's change, as watchers see it. `object` is the last state of a removed one. */
export interface StoreEvent<K extends Kind = Kind> {
  readonly kind: K;
  readonly action: 'created' | 'updated' | 'removed';
  readonly object: Kinds[K];
  readonly previous?: Kinds[K] | undefined;
}

export type EntryOutcome =
  | {
      readonly applied: true;
      readonly events: readonly StoreEvent[];
      /** Of the events of tasks, in order. */
      readonly tasks: PackedTasks;
      /** 32 bits of what the changes became, and of what they replaced: versions and times, not contents. */
      readonly digest: number;
    }
  | { readonly applied: false; readonly reason: string };

/** What entries are applied to: the tables, or something that behaves like them. */
export interface EntryTarget {
  get(kind: Kind, id: string): StoredObject | undefined;
  /** 0 when there is no such object. */
  versionOf(kind: Kind, id: string): number;
  byName(kind: NamedKind, name: string): { readonly id: string } | undefined;
  put<K extends Kind>(kind: K, object: Kinds[K]): void;
  /** Of a task that is there. */
  putTaskStatus(id: string, status: Task['status'], meta: Omit<Meta, 'createdAtMs'>): void;
  delete(kind: Kind, id: string): void;
  /** Adds a task that is there, as it is now. Returns its position. */
  packTask(tasks: PackedTasks, id: string): number;
}

/** Index and time of the entry. */
interface Moment {
  readonly index: number;
  readonly timeMs: number;
}

// Of FNV-1a, for 32 bits.
const DIGEST_PRIME = 16_777_619;

/** Applies all changes of the entry, or none when a guard does not hold. */
export function applyEntry(target: EntryTarget, index: number, entry: LogEntry): EntryOutcome {
  const { changes, guards, timeMs } = entry;
  for (const guard of guards) {
    const reason = findOtherVersion(target, guard);
    if (reason !== undefined) return { applied: false, reason };
  }
  for (const change of changes) {
    const reason = findConflict(target, change);
    if (reason !== undefined) return { applied: false, reason };
  }
  const reason = findDoubleName(changes);
  if (reason !== undefined) return { applied: false, reason };
  const tasks = new PackedTasks(changes.reduce((sum, change) => sum + taskRowsOf(change), 0));
  let digest = changes.length;
  const events = changes.map((change) => {
    const event =
      change.kind === 'task'
        ? applyTaskChange(target, tasks, { index, timeMs }, change)
        : applyChange(target, { index, timeMs }, change);
    const { version, createdAtMs } = event instanceof TaskEvent ? event.meta : event.object.meta;
    digest = Math.imul(digest ^ version, DIGEST_PRIME);
    digest = Math.imul(digest ^ createdAtMs, DIGEST_PRIME);
    digest = Math.imul(digest ^ (event.action === 'updated' ? change.expectedVersion : 0), DIGEST_PRIME);
    return event;
  });
  return { applied: true, events, tasks, digest: digest >>> 0 };
}

/** The object that a change carries whole: neither a delete does nor a task's status. */
export function objectOf(change: Change): StoredObject | undefined {
  return change[kindOf(change)];
}

export function isDelete(change: Change): boolean {
  return change.taskStatus === undefined && objectOf(change) === undefined;
}

/** An object as snapshots have it. */
export function snapshotRecord(kind: Kind, object: StoredObject, encodeRecord = encode): Uint8Array {
  return encodeRecord(ChangeCodec, { ...emptyChange, kind, id: object.id, [kind]: object });
}

function kindOf({ kind }: Pick<Guard, 'kind'>): Kind {
  assert(KINDS.includes(kind as Kind), () => `the log names an unknown kind "${kind}"`);
  return kind as Kind;
}

function findConflict(target: EntryTarget, change: Change): string | undefined {
  const otherVersion = findOtherVersion(target, change);
  if (otherVersion !== undefined) return otherVersion;
  const name = nameIn(change);
  const holder = name && target.byName(name.kind, name.name);
  return holder === undefined || holder.id === change.id
    ? undefined
    : `name ${name?.name} is taken by ${change.kind} ${holder.id}`;
}

function findOtherVersion(target: EntryTarget, guard: Guard): string | undefined {
  const { id, expectedVersion } = guard;
  const kind = kindOf(guard);
  const version = target.versionOf(kind, id);
  return version === expectedVersion
    ? undefined
    : `${kind} ${id} is at version ${version}, not ${expectedVersion}`;
}

/** The tables know what was there before the entry: two of its own changes may want the same name as well. */
function findDoubleName(changes: readonly Change[]): string | undefined {
  const wanted = new Set<string>();
  for (const change of changes) {
    const name = nameIn(change);
    if (name === undefined) continue;
    const key = `${name.kind} ${name.name.toLowerCase()}`;
    if (wanted.has(key)) return `name of ${key} is wanted twice`;
    wanted.add(key);
  }
  return undefined;
}

/** The name that a put gives to its object. */
function nameIn(change: Change): { readonly kind: NamedKind; readonly name: string } | undefined {
  const { kind } = change;
  const object = isNamed(kind) ? change[kind] : undefined;
  return object === undefined ? undefined : { kind: kind as NamedKind, name: object.spec.name };
}

function applyChange(target: EntryTarget, { index, timeMs }: Moment, change: Change): StoreEvent {
  const kind = kindOf(change);
  const previous = target.get(kind, change.id);
  const whole = objectOf(change);
  if (whole === undefined) {
    assert(previous !== undefined, () => `delete of ${kind} ${change.id} passed its guard`);
    target.delete(kind, change.id);
    return { kind, action: 'removed', object: previous };
  }
  const meta = { version: index, createdAtMs: previous?.meta.createdAtMs ?? timeMs, updatedAtMs: timeMs };
  const object = { ...whole, meta };
  target.put(kind, object as Kinds[typeof kind]);
  if (previous === undefined) return { kind, action: 'created', object };
  return { kind, action: 'updated', object, previous };
}

function taskRowsOf(change: Change): number {
  return change.kind === 'task' ? rowsOf(actionOf(change)) : 0;
}

function actionOf(change: Change): StoreEvent['action'] {
  if (isDelete(change)) return 'removed';
  return change.expectedVersion === 0 ? 'created' : 'updated';
}

function applyTaskChange(
  target: EntryTarget,
  tasks: PackedTasks,
  { index, timeMs }: Moment,
  change: Change,
): TaskEvent {
  const { id, expectedVersion, task, taskStatus } = change;
  const action = actionOf(change);
  const isThere = expectedVersion > 0;
  assert(isThere || task !== undefined, () => `a change of task ${id}, which is not there, passed its guard`);
  const before = isThere ? target.packTask(tasks, id) : undefined;
  if (before !== undefined && action === 'removed') {
    target.delete('task', id);
    return new TaskEvent(action, tasks, before);
  }
  if (task === undefined) {
    if (taskStatus !== undefined)
      target.putTaskStatus(id, taskStatus, { version: index, updatedAtMs: timeMs });
    return new TaskEvent(action, tasks, target.packTask(tasks, id));
  }
  const createdAtMs = before === undefined ? timeMs : tasks.metaAt(before).createdAtMs;
  const object = { ...task, meta: { version: index, createdAtMs, updatedAtMs: timeMs } };
  target.put('task', object);
  return new TaskEvent(action, tasks, tasks.add(object), object);
}
