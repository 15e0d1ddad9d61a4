// Signal names and numbers of Linux, as container images and `--stop-signal` spell them.

import { invalidField } from './errors.ts';

const NAMES =
  'HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS';
const NUMBER_BY_NAME = new Map(NAMES.split(' ').map((name, index) => [name, index + 1]));
const REALTIME_FIRST = 34;
const REALTIME_LAST = 64;

/** The number of "SIGTERM", "TERM", "15" or "RTMIN+3"; `field` names it in the error. */
export function parseSignal(text: string, field: string): number {
  const name = text.toUpperCase().replace(/^SIG/, '');
  const number = /^\d+$/.test(name) ? Number(name) : (NUMBER_BY_NAME.get(name) ?? parseRealtime(name));
  if (number === undefined || number < 1 || number > REALTIME_LAST)
    throw invalidField(field, `"${text}" is no signal; use a name such as SIGTERM or a number from 1 to 64`);
  return number;
}

function parseRealtime(name: string): number | undefined {
  const match = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (match === null) return undefined;
  const base = match[1] === 'MIN' ? REALTIME_FIRST : REALTIME_LAST;
  const number = base + (match[2] === '-' ? -1 : 1) * Number(match[3] ?? 0);
  return number >= REALTIME_FIRST && number <= REALTIME_LAST ? number : undefined;
}
