// The standard input of a container that keeps it open: a FIFO. The shim ends the input, or hangs up the terminal, when nobody
// has the FIFO open for writing; a process of its own does until the container's process has ended, so that neither the
// last who typed nor the end of this process is the end of it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { messageOf, SwarmError } from '../../../core/errors.ts';
import { check, libcFunctions } from '../../linux/libc.ts';

// How long the FIFO stays open after its container has ended.
const KEEPER_POLL_SECONDS = 5;

/** Makes the FIFO that a shim is told to open. Again after a start that was cut off. */
export function makeInput(fifo: string): void {
  if (!existsSync(fifo)) check(libcFunctions.mkfifo(fifo, 0o600), `make ${fifo}`);
}

/** Keeps the FIFO open for as long as the process `pid` lives. Throws `failed-precondition` when this machine cannot. */
export async function keepInputOpen(fifo: string, pid: number): Promise<void> {
  const fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    // Of coreutils: it ends with the process and holds half a megabyte.
    const args = [`--pid=${pid}`, '-s', String(KEEPER_POLL_SECONDS), '-f', '/dev/null'];
    const keeper: ChildProcess = spawn('tail', args, { stdio: [fd, 'ignore', 'ignore'], detached: true });
    await once(keeper, 'spawn');
    keeper.unref();
  } catch (error) {
    throw new SwarmError(
      'failed-precondition',
      `interactive: the standard input cannot be kept open: ${messageOf(error)}`,
      { hint: 'The node needs the program "tail" of GNU coreutils.', cause: error },
    );
  } finally {
    closeSync(fd);
  }
}

/** One who types. What the container does not read waits in the FIFO, and then here. */
export class InputWriter {
  readonly #socket: Socket;

  constructor(fifo: string) {
    // Opened both ways it needs no reader yet, and what is written before there is one is kept.
    const fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    this.#socket = new Socket({ fd, readable: false, writable: true });
    // A broken end shows as the end of the container.
    this.#socket.on('error', () => {});
  }

  /** Resolves when it is in the FIFO, or will never be. */
  write(data: Uint8Array): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#socket.destroyed) return Promise.resolve();
    this.#socket.once('close', resolve);
    this.#socket.write(data, () => {
      this.#socket.off('close', resolve);
      resolve();
    });
    return promise;
  }

  close(): void {
    this.#socket.destroy();
  }
}
