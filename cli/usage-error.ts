// What the operator typed cannot be understood. It ends the command before anything is sent.

import { SwarmError } from '../core/errors.ts';

/** Docker's exit status for a bad flag. */
export const EXIT_BAD_FLAG = 125;
export const EXIT_FAILURE = 1;

export class UsageError extends SwarmError {
  readonly exitCode: number;

  constructor(message: string, exitCode = EXIT_FAILURE) {
    super('invalid-argument', message);
    this.exitCode = exitCode;
  }
}

/** A flag or its value that is wrong. */
export function badFlag(message: string): UsageError {
  return new UsageError(message, EXIT_BAD_FLAG);
}
