// The FIFOs between a command in a container and who talks to it. They hold 64 KiB each, and nothing else does: a slow
// reader stops the command, a command that does not read stops the writer.

import { closeSync, constants, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { check, libcFunctions } from '../../linux/libc.ts';
import type { OutputChunk } from '../engine.ts';
import { InputWriter } from './standard-input.ts';

/** What the shim is told to open. Empty: not there. */
export interface ExecPaths {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

// What a command has started may hold its output open for ever: after its end, silence of this long is the end.
const SILENCE_MS = 500;

export class ExecStreams {
  readonly paths: ExecPaths;
  readonly #readers = new Map<OutputChunk['stream'], Socket>();
  readonly #input: InputWriter | undefined;

  private constructor(paths: ExecPaths) {
    this.paths = paths;
    for (const stream of ['stdout', 'stderr'] as const)
      if (paths[stream] !== '') this.#readers.set(stream, readerOf(paths[stream]));
    if (paths.stdin !== '') this.#input = new InputWriter(paths.stdin);
  }

  /** Makes the FIFOs. `base` is the beginning of their names. */
  static create(
    base: string,
    { tty, stdin }: { readonly tty: boolean; readonly stdin: boolean },
  ): ExecStreams {
    const paths = { stdin: stdin ? `${base}0` : '', stdout: `${base}1`, stderr: tty ? '' : `${base}2` };
    for (const fifo of listed(paths)) check(libcFunctions.mkfifo(fifo, 0o600), `make ${fifo}`);
    return new ExecStreams(paths);
  }

  get fifos(): readonly string[] {
    return listed(this.paths);
  }

  /** Both streams as they come, at the speed of the reader; ends with them, or in silence after `exited`. */
  async *read(exited: Promise<unknown>): AsyncGenerator<OutputChunk, void, undefined> {
    const hasExited = exited.then(() => delay(SILENCE_MS, 'silent' as const, { ref: false }));
    const sources = [...this.#readers].map(([stream, socket]) => ({
      stream,
      iterator: socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>,
    }));
    type Source = (typeof sources)[number];
    // One that was closed meanwhile has ended.
    const ask = async (source: Source) => ({
      source,
      next: await source.iterator.next().catch(() => ({ done: true as const, value: undefined })),
    });
    const pending = new Map(sources.map((source) => [source, ask(source)]));
    let isOver = false;
    void hasExited.then(() => {
      isOver = true;
    });
    while (pending.size > 0) {
      const silence = isOver ? delay(SILENCE_MS, 'silent' as const, { ref: false }) : hasExited;
      const first = await Promise.race([...pending.values(), silence]);
      // With what has come in the same moment as the silence: nothing has for as long as that.
      if (first === 'silent') return;
      const { source, next } = first;
      if (next.done) pending.delete(source);
      else {
        pending.set(source, ask(source));
        yield { stream: source.stream, data: next.value };
      }
    }
  }

  /** Throws away what comes from now on. */
  drain(): void {
    for (const socket of this.#readers.values()) socket.resume();
  }

  write(data: Uint8Array): Promise<void> {
    return this.#input?.write(data) ?? Promise.resolve();
  }

  /** Only the shim holds the command's stdin open after this. */
  closeInput(): void {
    this.#input?.close();
  }

  close(): void {
    this.closeInput();
    for (const socket of this.#readers.values()) socket.destroy();
  }

  /** Takes the FIFOs away: the command is gone for good. */
  remove(): void {
    for (const fifo of this.fifos) rmSync(fifo, { force: true });
  }
}

function listed(paths: ExecPaths): string[] {
  return Object.values(paths).filter((fifo) => fifo !== '');
}

function readerOf(path: string): Socket {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const socket = new Socket({ fd, readable: true, writable: false });
    // A broken end shows as the end.
    socket.on('error', () => {});
    return socket;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
