// What a command in a container writes: a FIFO that the shim writes to, read now and then. Only its end is kept. A command
// that writes without end is held up by the full FIFO instead of keeping the daemon busy.

import { closeSync, constants, openSync, readSync, unlinkSync } from 'node:fs';
import { check, libcFunctions } from '../../linux/libc.ts';

/** What Docker keeps of a health check's output. */
const OUTPUT_BYTES_MAX = 4096;
// The kernel's for a FIFO. Emptying it this often lets 3 MB/s through.
const FIFO_BYTES = 65_536;
const PERIOD_MS = 20;

export class ExecOutput {
  readonly path: string;
  readonly #fd: number;
  readonly #reading: NodeJS.Timeout;
  #isClosed = false;
  #tail: Buffer = Buffer.alloc(0);

  private constructor(path: string) {
    this.path = path;
    // The shim opens it twice, for stdout and stderr, and waits for a reader each time. It may be done with the first before
    // the second, so that what looks like the end is none: that is when the command has been deleted.
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#reading = setInterval(() => this.#read(), PERIOD_MS).unref();
  }

  static create(path: string): ExecOutput {
    check(libcFunctions.mkfifo(path, 0o600), `make ${path}`);
    return new ExecOutput(path);
  }

  /** One that is there already. */
  static open(path: string): ExecOutput {
    return new ExecOutput(path);
  }

  /** Takes the FIFO away: the command is gone for good. */
  remove(): void {
    unlinkSync(this.path);
  }

  /** Stops reading and returns the end of what was written; again after the first time. */
  close(): string {
    if (!this.#isClosed) {
      this.#isClosed = true;
      clearInterval(this.#reading);
      this.#read();
      closeSync(this.#fd);
    }
    // Without the rest of a character that was cut through.
    return this.#tail.toString('utf8').replace(/^\uFFFD+/, '');
  }

  #read(): void {
    const buffer = Buffer.allocUnsafe(FIFO_BYTES);
    try {
      const bytes = buffer.subarray(0, readSync(this.#fd, buffer, 0, FIFO_BYTES, null));
      this.#tail = Buffer.concat([this.#tail, bytes]).subarray(-OUTPUT_BYTES_MAX);
    } catch (error) {
      // There is nothing to read now.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}
