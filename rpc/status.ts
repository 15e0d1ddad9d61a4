// Errors to and from @grpc/grpc-js. Both directions: a SwarmError crosses a connection unharmed.

import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { SwarmError, toSwarmError } from '../core/errors.ts';
import { codeOfStatus, HINT_KEY, statusByCode, UNDONE_KEY } from './status-codes.ts';

/** What a server handler sends when it throws. */
export function toServiceError(error: unknown): Partial<ServiceError> {
  const failure = toSwarmError(error);
  const metadata = new Metadata();
  if (failure.hint !== undefined) metadata.set(HINT_KEY, Buffer.from(failure.hint));
  if (failure.isUndone) metadata.set(UNDONE_KEY, '1');
  return { code: statusByCode[failure.code], details: failure.message, metadata };
}

/** What a client call throws for a gRPC status other than OK. */
export function fromServiceError(error: unknown): SwarmError {
  if (error instanceof SwarmError) return error;
  const { code, details, metadata } = error as Partial<ServiceError>;
  if (typeof code !== 'number') return toSwarmError(error);
  const hint = metadata?.get(HINT_KEY)[0];
  return new SwarmError(codeOfStatus(code), details || 'no details', {
    cause: error,
    isUndone: metadata?.get(UNDONE_KEY)[0] === '1',
    ...(hint === undefined ? undefined : { hint: hint.toString() }),
  });
}
