// The `tar` of this machine, between a file system and a stream.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { SwarmError } from '../../core/errors.ts';

export interface LocalTar {
  /** What it writes, whenever that is read. */
  readonly output: AsyncIterable<Uint8Array>;
  /** Resolves when it takes more. */
  write(data: Uint8Array): Promise<void>;
  /** The other end's work and this one's: a failure of the other ends this one. Throws `internal` when tar has failed. */
  whole<T>(other: Promise<T>): Promise<T>;
}

/** Starts it in a directory. What it complains of goes to standard error. */
export function localTar(directory: string, args: readonly string[]): LocalTar {
  const tar = spawn('tar', args, { cwd: directory, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(tar, 'close');
  // A tar that has ended says why by its exit status.
  tar.stdin.on('error', () => {});
  // Node drops what nobody has read of a process's output when it ends, which is soon with a small archive.
  const output = tar.stdout.pipe(new PassThrough());
  return {
    output,
    async write(data) {
      if (!tar.stdin.write(data)) await Promise.race([once(tar.stdin, 'drain'), ended]);
    },
    async whole(other) {
      try {
        const result = await other;
        tar.stdin.end();
        const [code] = await ended;
        if (code !== 0) throw new SwarmError('internal', `tar on this machine has failed with ${code}`);
        return result;
      } finally {
        tar.kill();
      }
    },
  };
}
