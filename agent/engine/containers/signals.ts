// Signals by name or number, as an image or an operator writes them. Pure.

import { constants } from 'node:os';
import { SwarmError } from '../../../core/errors.ts';

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** The number of "SIGTERM", "TERM", "15" or "SIGRTMIN+3". Throws `invalid-argument`. */
export function signalNumber(text: string): number {
  const name = text.toUpperCase().replace(/^(?!SIG)(?=[A-Z])/, 'SIG');
  const known = (constants.signals as Record<string, number>)[name];
  if (known !== undefined) return known;
  const realtime = /^SIGRTM(IN|AX)([+-]\d+)?$/.exec(name);
  const base = realtime?.[1] === 'IN' ? SIGRTMIN : SIGRTMAX;
  const number = realtime === null ? Number(text) : base + Number(realtime[2] ?? 0);
  if (Number.isInteger(number) && number >= 1 && number <= SIGRTMAX && text.trim() !== '') return number;
  throw new SwarmError('invalid-argument', `invalid signal: ${text}`);
}
