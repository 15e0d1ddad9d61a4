// The only place where a table changes: applying one entry of the log. Deterministic and total, so that tables are
// equal on all managers at equal index.

import { assert } from '../../core/assert.ts';
import type { Meta, Task } from '../../core/generated/objects.ts';
import { type Change, ChangeCodec, emptyChange, type LogEntry } from '../../proto/generated/log.ts';
import { encode } from '../../proto/wire.ts';
import { isNamed, KINDS, type Kind, type Kinds, type NamedKind, type StoredObject } from './tables.ts';

/** One object's change, as watchers see it. `object` is the last state of a removed one. */
export interface StoreEvent<K extends Kind = Kind> {
  readonly kind: K;
  readonly action: 'created' | 'updated' | 'removed';
  readonly object: Kinds[K];
  readonly previous?: Kinds[K];
}

export type EntryOutcome =
  | { readonly applied: true; readonly events: readonly StoreEvent[] }
  | { readonly applied: false; readonly reason: string };

/** What entries are applied to: the tables, or something that behaves like them. */
export interface EntryTarget {
  get(kind: Kind, id: string): StoredObject | undefined;
  byName(kind: NamedKind, name: string): { readonly id: string } | undefined;
  put<K extends Kind>(kind: K, object: Kinds[K]): void;
  delete(kind: Kind, id: string): void;
}

// Of FNV-1a, for 32 bits.
const DIGEST_PRIME = 16_777_619;

/** Applies all changes of the entry, or none when a guard does not hold. */
export function applyEntry(target: EntryTarget, index: number, entry: LogEntry): EntryOutcome {
  const { changes, timeMs } = entry;
  const stored = changes.map((change) => target.get(kindOf(change), change.id));
  for (const [position, change] of changes.entries()) {
    const reason = findConflict(target, change, stored[position]);
    if (reason !== undefined) return { applied: false, reason };
  }
  const reason = findDoubleName(changes);
  if (reason !== undefined) return { applied: false, reason };
  const events = changes.map((change, position) =>
    applyChange(target, { index, timeMs }, change, stored[position]),
  );
  return { applied: true, events };
}

/** 32 bits of what the changes of an entry became, and of what they replaced: versions and times, not contents. */
export function digestOf(events: readonly StoreEvent[]): number {
  let digest = events.length;
  for (const { object, previous } of events) {
    const { version, createdAtMs } = object.meta;
    digest = Math.imul(digest ^ version, DIGEST_PRIME);
    digest = Math.imul(digest ^ createdAtMs, DIGEST_PRIME);
    digest = Math.imul(digest ^ (previous?.meta.version ?? 0), DIGEST_PRIME);
  }
  return digest >>> 0;
}

/** The object that a change carries whole: neither a delete does nor a task's status. */
export function objectOf(change: Change): StoredObject | undefined {
  return change[kindOf(change)];
}

export function isDelete(change: Change): boolean {
  return objectOf(change) === undefined && change.taskStatus === undefined;
}

/** An object as snapshots have it. */
export function snapshotRecord(kind: Kind, object: StoredObject, encodeRecord = encode): Uint8Array {
  return encodeRecord(ChangeCodec, { ...emptyChange, kind, id: object.id, [kind]: object });
}

function kindOf(change: Change): Kind {
  assert(KINDS.includes(change.kind as Kind), () => `the log names an unknown kind "${change.kind}"`);
  return change.kind as Kind;
}

function findConflict(
  target: EntryTarget,
  change: Change,
  stored: StoredObject | undefined,
): string | undefined {
  const kind = kindOf(change);
  const version = stored?.meta.version ?? 0;
  if (version !== change.expectedVersion)
    return `${kind} ${change.id} is at version ${version}, not ${change.expectedVersion}`;
  const name = nameIn(change);
  const holder = name && target.byName(name.kind, name.name);
  return holder === undefined || holder.id === change.id
    ? undefined
    : `name ${name?.name} is taken by ${kind} ${holder.id}`;
}

/** The tables know what was there before the entry: two of its own changes may want the same name as well. */
function findDoubleName(changes: readonly Change[]): string | undefined {
  const names = changes.flatMap((change) => {
    const name = nameIn(change);
    return name === undefined ? [] : [`${name.kind} ${name.name.toLowerCase()}`];
  });
  const double = names.find((name, position) => names.indexOf(name) !== position);
  return double === undefined ? undefined : `name of ${double} is wanted twice`;
}

/** The name that a put gives to its object. */
function nameIn(change: Change): { readonly kind: NamedKind; readonly name: string } | undefined {
  const kind = kindOf(change);
  const object = isNamed(kind) ? change[kind] : undefined;
  return object === undefined ? undefined : { kind: kind as NamedKind, name: object.spec.name };
}

function applyChange(
  target: EntryTarget,
  { index, timeMs }: { readonly index: number; readonly timeMs: number },
  change: Change,
  previous: StoredObject | undefined,
): StoreEvent {
  const kind = kindOf(change);
  const whole = objectOf(change);
  if (whole === undefined && change.taskStatus === undefined) {
    assert(previous !== undefined, () => `delete of ${kind} ${change.id} passed its guard`);
    target.delete(kind, change.id);
    return { kind, action: 'removed', object: previous };
  }
  const meta = { version: index, createdAtMs: previous?.meta.createdAtMs ?? timeMs, updatedAtMs: timeMs };
  const object =
    whole === undefined ? withStatus(change, previous as Task | undefined, meta) : { ...whole, meta };
  target.put(kind, object as Kinds[typeof kind]);
  if (previous === undefined) return { kind, action: 'created', object };
  return { kind, action: 'updated', object, previous };
}

function withStatus({ id, taskStatus: status }: Change, previous: Task | undefined, meta: Meta): Task {
  assert(previous !== undefined && status !== undefined, () => `a status of task ${id} passed its guard`);
  return { ...previous, status, meta };
}
