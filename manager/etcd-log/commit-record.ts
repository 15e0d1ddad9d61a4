// From log entries to one transaction of etcd and back. Objects lie under their own keys; the commit says which entries
// they come from, so that whoever reads both has the entries as they were proposed.

import { defined } from '../../core/assert.ts';
import { type EtcdCommit, EtcdCommitCodec, type EtcdEntry } from '../../proto/generated/etcd.ts';
import {
  type Change,
  ChangeCodec,
  emptyChange,
  type LogEntry,
  LogEntryCodec,
} from '../../proto/generated/log.ts';
import { decode, encode } from '../../proto/wire.ts';
import type { ApplyResult, ObjectStateMachine, RehearsedObject } from '../store/replicated-log.ts';

// What one transaction takes beyond its first entry: more would only keep those that wait from the next.
const BATCH_BYTES = 768 * 1024;
const BATCH_OBJECTS = 1_000;
// etcd's default limit of a request is 1.5 MiB. The rest is for keys, guards and framing.
const REQUEST_BYTES_MAX = 1.5 * 2 ** 20;
const FRAMING_BYTES_MAX = 128 * 1024;
export const PAYLOAD_BYTES_MAX = REQUEST_BYTES_MAX - FRAMING_BYTES_MAX;

/** Entries that go into one transaction. */
export interface CommitPlan {
  readonly index: number;
  /** What applying each will answer. */
  readonly results: readonly ApplyResult[];
  readonly commit: Uint8Array;
  /** Without a record: the object goes. */
  readonly objects: readonly RehearsedObject[];
}

/** Takes as many of the payloads as fit, at least the first. */
export function planCommit(
  machine: ObjectStateMachine,
  { index: lastIndex, term }: { index: number; term: number },
  payloads: readonly Uint8Array[],
): CommitPlan {
  const rehearsal = machine.rehearse();
  const entries: { index: number; entry: LogEntry }[] = [];
  const results: ApplyResult[] = [];
  let index = lastIndex;
  let bytes = 0;
  let changes = 0;
  for (const payload of payloads) {
    bytes += payload.length;
    if (results.length > 0 && (bytes > BATCH_BYTES || changes >= BATCH_OBJECTS)) break;
    const { entry, result } = rehearsal.add(++index, payload);
    results.push(result);
    if (!result.applied) continue;
    entries.push({ index, entry });
    changes += entry.changes.length;
  }
  const objects = [...rehearsal.objects()];
  const lastTouch = new Map(objects.map(({ kind, id, index: at }) => [`${kind}/${id}`, at]));
  const commit: EtcdCommit = {
    index,
    term,
    entries: entries.map(({ index: at, entry }) => lift(at, entry, lastTouch)),
  };
  return { index, results, commit: encode(EtcdCommitCodec, commit), objects };
}

/** Takes out what lies under the object's own key: the object as the last entry that touched it left it. */
function lift(index: number, entry: LogEntry, lastTouch: ReadonlyMap<string, number>): EtcdEntry {
  const lifted: number[] = [];
  const changes = entry.changes.map((change, position) => {
    const { kind, id, expectedVersion } = change;
    if (!hasObject(change) || lastTouch.get(`${kind}/${id}`) !== index) return change;
    lifted.push(position);
    return { ...emptyChange, kind, id, expectedVersion };
  });
  return { index, entry: { ...entry, changes }, lifted };
}

/** The payloads of a commit's entries, given the records of the objects that were written with it. */
export function payloadsOf(
  commit: EtcdCommit,
  recordOf: (name: string) => Uint8Array | undefined,
): { index: number; payload: Uint8Array }[] {
  return commit.entries.map(({ index, entry, lifted }) => {
    const changes = [...entry.changes];
    for (const position of lifted) {
      const { kind, id, expectedVersion } = defined(changes[position], 'a lifted change that is not there');
      const record = defined(recordOf(`${kind}/${id}`), `commit ${commit.index} without its ${kind} ${id}`);
      changes[position] = { ...decode(ChangeCodec, record), expectedVersion };
    }
    return { index, payload: encode(LogEntryCodec, { ...entry, changes }) };
  });
}

function hasObject(change: Change): boolean {
  return change[change.kind as keyof Change] !== undefined;
}
