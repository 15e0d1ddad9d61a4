// What may be asked of a running task. Pure.

import { invalidField, SwarmError } from '../../core/errors.ts';
import type { ExecCommand, ReachRequest } from '../../proto/generated/reach.ts';

// Each figure is some reads of the kernel's files.
const STATS_PERIOD_MIN_MS = 100;

/** Throws `invalid-argument` naming the field and what would be right. */
export function validateReach({ task, exec, attach, top, stats }: ReachRequest): void {
  if (task === '') throw invalidField('task', 'must be the id of a task, or SERVICE.SLOT');
  if (exec !== undefined) validateExec(exec);
  if (stats !== undefined && stats.periodMs !== 0 && stats.periodMs < STATS_PERIOD_MIN_MS)
    throw invalidField('stats.period', `must be 0 or at least ${STATS_PERIOD_MIN_MS} ms`);
  if ([exec, attach, top, stats].every((asked) => asked === undefined))
    throw new SwarmError('unimplemented', 'this manager does not know what is asked for', {
      hint: 'The command line may be newer than the manager.',
    });
}

function validateExec({ command, env, workdir, detach, stdin }: ExecCommand): void {
  if (command.length === 0 || command[0] === '') throw invalidField('exec.command', 'must not be empty');
  for (const word of [...command, ...env])
    if (word.includes('\0')) throw invalidField('exec.command', 'must not have NUL characters');
  const bad = env.find((entry) => !/^[^=]+=/.test(entry));
  if (bad !== undefined) throw invalidField('exec.env', `"${bad}" must be NAME=value`);
  if (workdir !== '' && !workdir.startsWith('/'))
    throw invalidField('exec.workdir', `"${workdir}" must be an absolute path`);
  if (detach && stdin) throw invalidField('exec.stdin', 'a command that is detached has no standard input');
}
