// The one table between our error codes and gRPC's, as numbers, so that it can be read without a gRPC library.

import type { ErrorCode } from '../core/errors.ts';

export const STATUS_OK = 0;

const OUT_OF_RANGE = 11;
const UNAUTHENTICATED = 16;

export const statusByCode: Readonly<Record<ErrorCode, number>> = {
  cancelled: 1,
  'invalid-argument': 3,
  'deadline-exceeded': 4,
  'not-found': 5,
  'already-exists': 6,
  'permission-denied': 7,
  'resource-exhausted': 8,
  'failed-precondition': 9,
  'out-of-sequence': 10,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
};

const codeByStatus = new Map(Object.entries(statusByCode).map(([code, value]) => [value, code as ErrorCode]));
// What other servers (containerd) answer and we have no word of our own for.
codeByStatus.set(OUT_OF_RANGE, 'out-of-sequence').set(UNAUTHENTICATED, 'permission-denied');

/** Ours for a status of the wire; `internal` for one that is in no table. */
export function codeOfStatus(status: number): ErrorCode {
  return codeByStatus.get(status) ?? 'internal';
}

/** Metadata that carries an error's hint. */
export const HINT_KEY = 'tsswarm-hint-bin';
/** Set when nothing has happened of what was asked. */
export const UNDONE_KEY = 'tsswarm-undone';
