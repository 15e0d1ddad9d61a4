// Where things are under the prefix, and the requests that are made of them.

import type { ICompare, IKeyValue, IRequestOp, ITxnRequest } from 'etcd3';
import { SwarmError } from '../../core/errors.ts';

export class Keys {
  readonly #prefix: string;
  /** The id of the cluster that the prefix belongs to. */
  readonly cluster: Buffer;
  /** Who leads: exists while a lease does; the revision that created it is the term. */
  readonly leader: Buffer;
  /** The last transaction; its history is the log. */
  readonly commit: Buffer;
  /** Everything. */
  readonly all: KeyRange;
  /** One key a manager that runs. */
  readonly managers: KeyRange;

  constructor(prefix: string) {
    this.#prefix = prefix;
    this.cluster = this.#key('cluster-id');
    this.leader = this.#key('leader');
    this.commit = this.#key('commit');
    this.all = rangeUnder(`${prefix}/`);
    this.managers = rangeUnder(`${prefix}/managers/`);
  }

  manager(nodeId: string): Buffer {
    return this.#key(`managers/${nodeId}`);
  }

  object(kind: string, id: string): Buffer {
    return this.#key(`objects/${kind}/${id}`);
  }

  /** All objects. */
  get objects(): KeyRange {
    return rangeUnder(`${this.#prefix}/objects/`);
  }

  /** "kind/id" of an object's key, undefined for any other key. */
  objectName(key: Buffer): string | undefined {
    const start = `${this.#prefix}/objects/`;
    const text = key.toString();
    return text.startsWith(start) ? text.slice(start.length) : undefined;
  }

  #key(name: string): Buffer {
    return Buffer.from(`${this.#prefix}/${name}`);
  }
}

export interface KeyRange {
  readonly key: Buffer;
  readonly range_end: Buffer;
}

function rangeUnder(start: string): KeyRange {
  const end = Buffer.from(start);
  end[end.length - 1] = (end.at(-1) as number) + 1;
  return { key: Buffer.from(start), range_end: end };
}

/** What etcd3 gives as text: revisions and leases stay far below 2^53, or are only compared. */
export function revisionOf(text: string): number {
  return Number(text);
}

export function isCreatedAt(key: Buffer, revision: number): ICompare {
  return { key, target: 'Create', result: 'Equal', create_revision: revision };
}

export function isModifiedAt(key: Buffer, revision: number): ICompare {
  return { key, target: 'Mod', result: 'Equal', mod_revision: revision };
}

export function get(key: Buffer): IRequestOp {
  return { request_range: { key } };
}

/** Without the value, which may be long. */
export function getRevision(key: Buffer): IRequestOp {
  return { request_range: { key, keys_only: true } };
}

export function put(key: Buffer, value: Uint8Array, lease?: string): IRequestOp {
  return { request_put: { key, value: value as Buffer, ...(lease !== undefined && { lease }) } };
}

export function remove(range: Pick<KeyRange, 'key'> & Partial<KeyRange>): IRequestOp {
  return { request_delete_range: range };
}

/** The key that a range request of one key found. */
export function found(answer: { response_range: { kvs: IKeyValue[] } } | undefined): IKeyValue | undefined {
  return answer?.response_range.kvs[0];
}

// etcd's default. A nested transaction counts as one operation of the outer one, and lowers what it may hold itself.
const OPERATIONS_MAX = 128;
export const NESTED_OPERATIONS_MAX = (OPERATIONS_MAX / 2) ** 2;

/** One transaction, however many operations it takes: beyond etcd's limit they go into nested ones, as atomic. */
export function transaction(
  compare: ICompare[],
  operations: IRequestOp[],
  failure: IRequestOp[],
): ITxnRequest {
  const count = operations.length;
  if (count <= OPERATIONS_MAX) return { compare, success: operations, failure };
  if (count > NESTED_OPERATIONS_MAX)
    throw new SwarmError('resource-exhausted', `${count} changes are too many for one transaction of etcd`);
  let groups = 2;
  while (groups * (OPERATIONS_MAX - groups) < count) groups++;
  const size = Math.ceil(count / groups);
  const success = Array.from({ length: groups }, (_, group) => ({
    request_txn: { compare: [], success: operations.slice(group * size, (group + 1) * size), failure: [] },
  }));
  return { compare, success, failure };
}
