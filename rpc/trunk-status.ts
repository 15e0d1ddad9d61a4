// How a call of a trunk ends, in a frame: the same as the status of a gRPC call (`status.ts`).

import { SwarmError, toSwarmError } from '../core/errors.ts';
import { emptyTrunkEnd, type TrunkEnd } from '../proto/generated/trunk.ts';
import { codeOfStatus, STATUS_OK, statusByCode } from './status-codes.ts';

/** The good end without `failure`. */
export function toTrunkEnd(failure: unknown): TrunkEnd {
  if (failure === undefined) return emptyTrunkEnd;
  const { code, message, hint, isUndone } = toSwarmError(failure);
  return { status: statusByCode[code], message, undone: isUndone, ...(hint !== undefined && { hint }) };
}

/** Undefined: all is well. */
export function fromTrunkEnd({ status, message, hint, undone }: TrunkEnd): SwarmError | undefined {
  if (status === STATUS_OK) return undefined;
  return new SwarmError(codeOfStatus(status), message || 'no details', {
    isUndone: undone,
    ...(hint !== undefined && { hint }),
  });
}
