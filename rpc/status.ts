// The one table between our error codes and gRPC's. Both directions: a SwarmError crosses a connection unharmed.

import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { type ErrorCode, SwarmError, toSwarmError } from '../core/errors.ts';

const STATUS_BY_CODE: Record<ErrorCode, status> = {
  'invalid-argument': status.INVALID_ARGUMENT,
  'not-found': status.NOT_FOUND,
  'already-exists': status.ALREADY_EXISTS,
  'failed-precondition': status.FAILED_PRECONDITION,
  'out-of-sequence': status.ABORTED,
  'resource-exhausted': status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
  'deadline-exceeded': status.DEADLINE_EXCEEDED,
  'permission-denied': status.PERMISSION_DENIED,
  cancelled: status.CANCELLED,
  unimplemented: status.UNIMPLEMENTED,
  internal: status.INTERNAL,
};
const CODE_BY_STATUS = new Map(
  Object.entries(STATUS_BY_CODE).map(([code, value]) => [value, code as ErrorCode]),
);
// What other servers (containerd) answer and we have no word of our own for.
CODE_BY_STATUS.set(status.OUT_OF_RANGE, 'out-of-sequence').set(status.UNAUTHENTICATED, 'permission-denied');

const HINT_KEY = 'tsswarm-hint-bin';

/** What a server handler sends when it throws. */
export function toServiceError(error: unknown): Partial<ServiceError> {
  const failure = toSwarmError(error);
  const metadata = new Metadata();
  if (failure.hint !== undefined) metadata.set(HINT_KEY, Buffer.from(failure.hint));
  return { code: STATUS_BY_CODE[failure.code], details: failure.message, metadata };
}

/** What a client call throws for a gRPC status other than OK. */
export function fromServiceError(error: unknown): SwarmError {
  if (error instanceof SwarmError) return error;
  const { code, details, metadata } = error as Partial<ServiceError>;
  if (typeof code !== 'number') return toSwarmError(error);
  const hint = metadata?.get(HINT_KEY)[0];
  return new SwarmError(CODE_BY_STATUS.get(code) ?? 'internal', details || 'no details', {
    cause: error,
    ...(hint === undefined ? undefined : { hint: hint.toString() }),
  });
}
