// What a runtime says when a container does not start, told as Docker tells it. Pure.

import { hasCode, messageOf, SwarmError } from '../../../core/errors.ts';

const NOT_FOUND = /executable file .*not found|no such file or directory|stat .*: not a directory/i;
const NOT_EXECUTABLE =
  /permission denied|exec format error|is a directory|open executable: operation not permitted/i;

/** `invalid-argument` with the exit code 127 or 126 in its hint when the command is at fault. */
export function startFailure(error: unknown, command: string): unknown {
  return commandFailure(error, command, 'failed to start container');
}

/** The same for a command that is run beside the container's own. */
export function execFailure(error: unknown, command: string): unknown {
  return commandFailure(error, command, 'failed to run in the container');
}

function commandFailure(error: unknown, command: string, what: string): unknown {
  if (hasCode(error, 'unavailable') || hasCode(error, 'deadline-exceeded')) return error;
  const reason = messageOf(error)
    .replace(/^.*?(OCI runtime (?:create|start|exec) failed)/s, '$1')
    .trim();
  const isExec = /exec|executable|chdir|init caused|cannot run|find/i.test(reason);
  const isMount = /mounting "|mount `|rootfs_linux|error mounting/i.test(reason);
  if (isExec && !isMount && NOT_FOUND.test(reason))
    return badCommand(`${what}: exec: ${JSON.stringify(command)}: executable file not found`, 127, reason);
  if (isExec && !isMount && NOT_EXECUTABLE.test(reason))
    return badCommand(`${what}: exec: ${JSON.stringify(command)}: cannot be executed`, 126, reason);
  return new SwarmError('failed-precondition', `${what}: ${reason}`, { cause: error });
}

function badCommand(problem: string, exitCode: number, reason: string): SwarmError {
  return new SwarmError('invalid-argument', `${problem}: ${reason}`, {
    hint: `Exit code ${exitCode}. Check the command, and that it is in the image's PATH.`,
  });
}

/** Why a runtime did not give a container other limits: what matters of a long chain of programs. */
export function limitFailure(error: unknown): string {
  const reason = messageOf(error).replace(
    /^.*?(?:OCI runtime update failed|runtime did not terminate successfully)[^:]*: /s,
    '',
  );
  if (/EBUSY|device or resource busy|current usage|resource busy/i.test(reason))
    return 'the limit of memory is below what the container uses';
  return `the runtime does not change the limits: ${reason.trim()}`;
}
