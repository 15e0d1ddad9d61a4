// Entries applied to a layer over the tables: what they would change is in the layer, the tables stay as they are.

import { defined } from '../../core/assert.ts';
import type { Meta, Task } from '../../core/generated/objects.ts';
import { LogEntryCodec } from '../../proto/generated/log.ts';
import { decode } from '../../proto/wire.ts';
import { applyEntry, type EntryTarget, snapshotRecord } from './apply-entry.ts';
import type { Rehearsal, RehearsedEntry, RehearsedObject } from './replicated-log.ts';
import {
  isNamed,
  type Kind,
  type Kinds,
  type NamedKind,
  nameKey,
  type StoredObject,
  type Tables,
} from './tables.ts';
import type { PackedTasks } from './task-events.ts';

interface Touched {
  readonly kind: Kind;
  readonly id: string;
  readonly index: number;
  readonly object: StoredObject | undefined;
}

export class TablesRehearsal implements Rehearsal {
  readonly #layer: Layer;

  constructor(tables: Tables) {
    this.#layer = new Layer(tables);
  }

  add(index: number, payload: Uint8Array): RehearsedEntry {
    const entry = decode(LogEntryCodec, payload);
    this.#layer.index = index;
    const outcome = applyEntry(this.#layer, index, entry);
    if (outcome.applied) return { entry, result: { applied: true, index, digest: outcome.digest } };
    return { entry, result: { applied: false, index, reason: outcome.reason } };
  }

  *objects(): Iterable<RehearsedObject> {
    for (const { kind, id, index, object } of this.#layer.touched.values())
      yield { kind, id, index, record: object && snapshotRecord(kind, object) };
  }
}

class Layer implements EntryTarget {
  /** Of the entry that is being applied. */
  index = 0;
  readonly touched = new Map<string, Touched>();
  readonly #tables: Tables;
  /** "service/web" → who took that name in this layer. */
  readonly #idByName = new Map<string, string>();

  constructor(tables: Tables) {
    this.#tables = tables;
  }

  get(kind: Kind, id: string): StoredObject | undefined {
    const touched = this.touched.get(`${kind}/${id}`);
    return touched === undefined ? this.#tables.get(kind, id) : touched.object;
  }

  versionOf(kind: Kind, id: string): number {
    return this.get(kind, id)?.meta.version ?? 0;
  }

  packTask(tasks: PackedTasks, id: string): number {
    return tasks.add(this.#task(id));
  }

  putTaskStatus(id: string, status: Task['status'], meta: Omit<Meta, 'createdAtMs'>): void {
    const task = this.#task(id);
    this.put('task', { ...task, status, meta: { ...task.meta, ...meta } });
  }

  byName(kind: NamedKind, name: string): { readonly id: string } | undefined {
    const key = name.toLowerCase();
    const taken = this.#idByName.get(`${kind}/${key}`) ?? this.#tables.byName(kind, name)?.id;
    if (taken === undefined) return undefined;
    // Whoever had the name may have another by now, or be gone.
    const holder = this.get(kind, taken) as Kinds[NamedKind] | undefined;
    return holder !== undefined && nameKey(holder) === key ? holder : undefined;
  }

  put<K extends Kind>(kind: K, object: Kinds[K]): void {
    this.#touch(kind, object.id, object);
    if (isNamed(kind)) this.#idByName.set(`${kind}/${nameKey(object as Kinds[NamedKind])}`, object.id);
  }

  delete(kind: Kind, id: string): void {
    this.#touch(kind, id, undefined);
  }

  #task(id: string): Task {
    return defined(this.get('task', id), `no task ${id}`) as Task;
  }

  #touch(kind: Kind, id: string, object: StoredObject | undefined): void {
    this.touched.set(`${kind}/${id}`, { kind, id, index: this.index, object });
  }
}
