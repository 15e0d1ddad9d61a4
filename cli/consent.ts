// Asks before what cannot be undone.

import { SwarmError } from '../core/errors.ts';
import { readLine } from './input-line.ts';
import type { Io } from './io.ts';

/** Throws `cancelled` unless the operator says yes. */
export async function requireConsent(io: Io, warning: string, command: string): Promise<void> {
  await io.out(`${warning}\nAre you sure you want to continue? [y/N] `);
  const answer = await readLine(io);
  if (answer.trim().toLowerCase() !== 'y') throw new SwarmError('cancelled', `${command} has been cancelled`);
}
