// Talking to a container's own process: its output as the shim writes it, ahead of the log, and its standard input.

import { hasCode } from '../../../core/errors.ts';
import type { Containerd } from '../containerd/connection.ts';
import type { AttachSession } from '../engine.ts';
import type { LogService } from '../logs/log-service.ts';
import { type ContainerEntry, runningPid } from './entry.ts';
import type { ContainerLifecycle } from './lifecycle.ts';
import { signalNumber } from './signals.ts';
import { InputWriter } from './standard-input.ts';

interface AttachOptions {
  readonly containerd: Containerd;
  readonly logs: LogService;
  readonly lifecycle: Pick<ContainerLifecycle, 'signal'>;
}

/** Throws `failed-precondition` when the container does not run. */
export function attachTo(
  entry: ContainerEntry,
  { containerd, logs, lifecycle }: AttachOptions,
): AttachSession {
  runningPid(entry);
  const { tty, openStdin = false } = entry.record;
  const left = new AbortController();
  const input = openStdin ? new InputWriter(entry.directory.stdinPath) : undefined;
  const written = logs.output(entry.id, left.signal);
  return {
    tty,
    stdin: openStdin,
    output: written,
    exited: entry.whenExited.then(({ exitCode }) => exitCode),
    write: (data) => input?.write(data) ?? Promise.resolve(),
    resize: async ({ columns, rows }) => {
      if (!tty) return;
      try {
        await containerd.tasks.resizePty({ containerId: entry.id, execId: '', width: columns, height: rows });
      } catch (error) {
        // It has ended meanwhile.
        if (!hasCode(error, 'not-found') && !hasCode(error, 'failed-precondition')) throw error;
      }
    },
    signal: (name) => lifecycle.signal(entry, signalNumber(name)),
    leave: () => {
      left.abort();
      input?.close();
    },
  };
}
