// The only place where a table changes: applying one entry of the log. Deterministic and total, so that tables are
// equal on all managers at equal index.

import { assert } from '../../core/assert.ts';
import type { Change, LogEntry } from '../../proto/generated/log.ts';
import { KINDS, type Kind, type Kinds, type StoredObject, type Tables } from './tables.ts';

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

/** Applies all changes of the entry, or none when a guard does not hold. */
export function applyEntry(tables: Tables, index: number, entry: LogEntry): EntryOutcome {
  const reason = entry.changes
    .map((change) => findConflict(tables, change))
    .find((conflict) => conflict !== undefined);
  if (reason !== undefined) return { applied: false, reason };
  return {
    applied: true,
    events: entry.changes.map((change) => applyChange(tables, index, entry.timeMs, change)),
  };
}

/** The object a put carries, undefined for a delete. */
export function objectOf(change: Change): StoredObject | undefined {
  return change[kindOf(change)];
}

function kindOf(change: Change): Kind {
  assert(KINDS.includes(change.kind as Kind), `the log names an unknown kind "${change.kind}"`);
  return change.kind as Kind;
}

function findConflict(tables: Tables, change: Change): string | undefined {
  const kind = kindOf(change);
  const stored = tables[kind].get(change.id);
  const version = stored?.meta.version ?? 0;
  if (version !== change.expectedVersion)
    return `${kind} ${change.id} is at version ${version}, not ${change.expectedVersion}`;
  if (kind !== 'service' || change.service === undefined) return undefined;
  const holder = tables.serviceByName(change.service.spec.name);
  return holder === undefined || holder.id === change.id
    ? undefined
    : `name ${change.service.spec.name} is taken by service ${holder.id}`;
}

function applyChange(tables: Tables, index: number, timeMs: number, change: Change): StoreEvent {
  const kind = kindOf(change);
  const previous = tables[kind].get(change.id);
  const put = objectOf(change);
  if (put === undefined) {
    assert(previous !== undefined, `delete of ${kind} ${change.id} passed its guard`);
    tables.delete(kind, change.id);
    return { kind, action: 'removed', object: previous };
  }
  const meta = { version: index, createdAtMs: previous?.meta.createdAtMs ?? timeMs, updatedAtMs: timeMs };
  const object = { ...put, meta };
  tables.put(kind, object as Kinds[typeof kind]);
  if (previous === undefined) return { kind, action: 'created', object };
  return { kind, action: 'updated', object, previous };
}
