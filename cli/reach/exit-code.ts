// What the end of a stream into a task means for this program's own end.

import { type ErrorCode, SwarmError } from '../../core/errors.ts';
import type { ReachEnd } from '../../proto/generated/reach.ts';
import type { Io } from '../io.ts';

/** The command's exit status. Throws why it could not be begun; 126 and 127 are told as a shell does. */
export function exitCodeOf(ended: ReachEnd | undefined, io: Pick<Io, 'err'>): number {
  if (ended === undefined) return 0;
  const { error, errorCode, hint, exitCode } = ended;
  if (error === '') return exitCode;
  if (exitCode === 0) throw new SwarmError(errorCode as ErrorCode, error, hint === '' ? {} : { hint });
  io.err(`Error: ${error}\n`);
  return exitCode;
}
