// The logs of all containers: one tailer each while it runs, one watch on the spool directory for all of them.

import {
  closeSync,
  existsSync,
  type FSWatcher,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  watch,
} from 'node:fs';
import path from 'node:path';
import { messageOf } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { LogQuery, LogRecord, LogSettings, OutputChunk } from '../engine.ts';
import { LogCompressor } from './compressor.ts';
import { openSink } from './line-sink.ts';
import { readLog } from './reader.ts';
import { readSpool } from './spool-output.ts';
import { LogTailer, type SpoolPaths, stateFile } from './tailer.ts';

// Collects the writes of a burst.
const PUMP_DELAY_MS = 2;
// The kernel drops notifications when too many are waiting.
const POLL_PERIOD_MS = 2000;

export class LogService implements Disposable {
  readonly #spoolDirectory: string;
  readonly #log: Logger;
  readonly #onDropped: (lines: number) => void;
  readonly #tailers = new Map<string, LogTailer>();
  readonly #compressor: LogCompressor;
  /** Those who read a spool as it grows. */
  readonly #listeners = new Map<string, Set<() => void>>();
  readonly #due = new Set<string>();
  readonly #watcher: FSWatcher;
  readonly #poll: NodeJS.Timeout;
  #isPumping = false;

  /** `onDropped` hears of lines that a log driver did not take. */
  constructor(spoolDirectory: string, log: Logger, onDropped: (lines: number) => void = () => {}) {
    this.#onDropped = onDropped;
    this.#spoolDirectory = spoolDirectory;
    this.#log = log;
    this.#compressor = new LogCompressor(log);
    mkdirSync(spoolDirectory, { recursive: true, mode: 0o700 });
    this.#watcher = watch(spoolDirectory, { persistent: false }, (_event, file) => {
      if (file !== null) this.#hear(path.parse(file).name);
    });
    this.#watcher.on('error', (error) => log.error({ reason: messageOf(error) }, 'log spool is not watched'));
    this.#poll = setInterval(() => {
      for (const id of this.#tailers.keys()) this.#hear(id);
    }, POLL_PERIOD_MS).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#poll);
    this.#watcher.close();
    this.#compressor[Symbol.dispose]();
    for (const tailer of this.#tailers.values()) tailer.close();
    this.#tailers.clear();
  }

  /** Where the shim is to write. Only stdout is used with a terminal. */
  spoolPaths(id: string): SpoolPaths {
    return {
      stdout: path.join(this.#spoolDirectory, `${id}.out`),
      stderr: path.join(this.#spoolDirectory, `${id}.err`),
    };
  }

  /** Creates what is missing of the spool and follows it. `directory` holds the log. */
  open(id: string, directory: string, settings: LogSettings): void {
    if (this.#tailers.has(id)) return;
    const spool = this.spoolPaths(id);
    for (const file of [spool.stdout, spool.stderr]) closeSync(openSync(file, 'a', 0o600));
    const compress = () => this.#compressor.offer(directory);
    // What another process has left.
    if (settings.compress) compress();
    this.#tailers.set(
      id,
      new LogTailer({
        spool,
        directory,
        settings,
        log: this.#log,
        sink: openSink(id, settings),
        onDropped: this.#onDropped,
        ...(settings.compress && { onRotated: compress }),
      }),
    );
    this.#schedule(id);
  }

  /** Follows a spool that is there: after a restart, when its container may have ended. */
  resume(id: string, directory: string, settings: LogSettings): void {
    if (existsSync(this.spoolPaths(id).stdout)) this.open(id, directory, settings);
  }

  /** What the container wrote is not all in its log yet, or it still runs. */
  isFollowed(id: string): boolean {
    return this.#tailers.has(id);
  }

  /** Stores the rest of an ended container's output. Does nothing when that is done. */
  finish(id: string, directory: string, settings: LogSettings): void {
    this.resume(id, directory, settings);
    this.#tailers.get(id)?.finish();
    this.#tailers.delete(id);
  }

  /** Forgets what was not stored; the log goes as well unless `keepLog`. */
  remove(id: string, directory: string, keepLog: boolean): void {
    this.#tailers.get(id)?.close();
    this.#tailers.delete(id);
    const spool = this.spoolPaths(id);
    for (const file of [spool.stdout, spool.stderr, stateFile(directory)]) rmSync(file, { force: true });
    if (keepLog || !existsSync(directory)) return;
    for (const name of readdirSync(directory))
      if (name.startsWith('log.json')) rmSync(path.join(directory, name), { force: true });
  }

  /** The lines of a container that runs, has ended or was removed with its log kept. */
  async *read(id: string, directory: string, query: LogQuery): AsyncIterable<readonly LogRecord[]> {
    const tailer = this.#tailers.get(id);
    tailer?.drain();
    yield* readLog(directory, tailer, query);
  }

  /** What a running container writes from now on, as it writes it; ends with it or when the signal aborts. */
  async *output(id: string, signal: AbortSignal): AsyncGenerator<OutputChunk, void, undefined> {
    const tailer = this.#tailers.get(id);
    if (tailer === undefined) return;
    const listeners = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, listeners);
    const onWritten = (listener: () => void) => {
      listeners.add(listener);
      const stop = tailer.onChange(listener);
      return () => {
        listeners.delete(listener);
        stop();
      };
    };
    try {
      yield* readSpool(this.spoolPaths(id), { tailer, onWritten, signal });
    } finally {
      if (listeners.size === 0) this.#listeners.delete(id);
    }
  }

  /** Something may have been written to a spool. */
  #hear(id: string): void {
    this.#schedule(id);
    for (const listener of [...(this.#listeners.get(id) ?? [])]) listener();
  }

  #schedule(id: string): void {
    if (!this.#tailers.has(id)) return;
    this.#due.add(id);
    if (this.#isPumping) return;
    this.#isPumping = true;
    setTimeout(() => this.#pumpDue(), PUMP_DELAY_MS);
  }

  /** One buffer of each container that has something, then the event loop's turn. */
  #pumpDue(): void {
    const due = [...this.#due];
    this.#due.clear();
    for (const id of due) if (this.#tailers.get(id)?.pump()) this.#due.add(id);
    if (this.#due.size > 0) setImmediate(() => this.#pumpDue());
    else this.#isPumping = false;
  }
}
