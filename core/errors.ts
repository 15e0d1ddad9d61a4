// The one error type of the project. Every failure that a person or another process can act on carries a
// code of this closed set; `rpc/` maps codes to gRPC statuses and nothing else chooses a status.

export type ErrorCode =
  | 'invalid-argument'
  | 'not-found'
  | 'already-exists'
  | 'failed-precondition'
  | 'out-of-sequence'
  | 'resource-exhausted'
  | 'unavailable'
  | 'deadline-exceeded'
  | 'permission-denied'
  | 'cancelled'
  | 'unimplemented'
  | 'internal';

export interface ErrorDetail {
  /** What the reader can do about it: one sentence, printed under the message. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** Nothing has happened, and nothing will: the same may be asked again. */
  readonly isUndone?: boolean;
}

/** An expected failure: what failed, on what, and (hint) the way out. Bugs use `assert` instead. */
export class SwarmError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly isUndone: boolean;
  override readonly name = 'SwarmError';

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.hint = detail.hint;
    this.isUndone = detail.isUndone ?? false;
  }
}

/** Shorthand for the commonest refusal: names the field, says what is wrong and what would be right. */
export function invalidField(field: string, problem: string): SwarmError {
  return new SwarmError('invalid-argument', `${field}: ${problem}`);
}

/** True when `error` is a SwarmError with this code. `catch` blocks name the code that they expect. */
export function hasCode(error: unknown, code: ErrorCode): error is SwarmError {
  return error instanceof SwarmError && error.code === code;
}

/** Any thrown value as a SwarmError; what is not one already is `internal`. */
export function toSwarmError(error: unknown): SwarmError {
  if (error instanceof SwarmError) return error;
  return new SwarmError('internal', messageOf(error), { cause: error });
}

/** The text of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
