// Compresses log files that were rotated: one at a time on this node, with pauses as long as the work, so that it takes half a core
// at most. A compressed file takes its name when it is whole and on the disk, and only then the other one goes: whatever a
// crash leaves can be read, and is compressed again.

import {
  closeSync,
  createWriteStream,
  fstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { createGzip } from 'node:zlib';
import { messageOf } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { compressedPath, logPath } from './json-log.ts';
import { chunksOf } from './log-file.ts';

// One turn of work.
const CHUNK_BYTES = 256 * 1024;

export class LogCompressor implements Disposable {
  readonly #log: Logger;
  readonly #directories = new Set<string>();
  readonly #stopping = new AbortController();
  #isRunning = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** A log in this directory may have files to compress. */
  offer(directory: string): void {
    this.#directories.add(directory);
    if (this.#isRunning || this.#stopping.signal.aborted) return;
    this.#isRunning = true;
    void this.#run();
  }

  [Symbol.dispose](): void {
    this.#stopping.abort();
    this.#directories.clear();
  }

  async #run(): Promise<void> {
    for (const directory of this.#directories) {
      this.#directories.delete(directory);
      try {
        // The newest: it stays longest.
        const index = rotated(directory)[0];
        if (index === undefined) continue;
        await compress(directory, index, this.#stopping.signal);
        this.#directories.add(directory);
      } catch (error) {
        if (this.#stopping.signal.aborted) return;
        this.#log.warn({ directory, reason: messageOf(error) }, 'log file not compressed, stays as it is');
      }
    }
    this.#isRunning = false;
  }
}

/** How often each file was rotated that is not compressed, the least first. */
function rotated(directory: string): number[] {
  return readdirSync(directory)
    .map((name) => Number(/^log\.json\.(\d+)$/.exec(name)?.[1] ?? 0))
    .filter((index) => index > 0)
    .sort((a, b) => a - b);
}

async function compress(directory: string, index: number, signal: AbortSignal): Promise<void> {
  const unfinished = path.join(directory, 'log.json.unfinished');
  const fd = openSync(logPath(directory, index), 'r');
  try {
    await pipeline(
      () => paced(chunksOf(fd, CHUNK_BYTES)),
      createGzip(),
      createWriteStream(unfinished, { mode: 0o640, flush: true }),
      { signal },
    );
    // It may have been rotated on meanwhile, or dropped.
    const { ino } = fstatSync(fd);
    const place = rotated(directory).find((at) => statSync(logPath(directory, at)).ino === ino);
    if (place === undefined) return;
    renameSync(unfinished, compressedPath(directory, place));
    rmSync(logPath(directory, place));
  } finally {
    closeSync(fd);
    rmSync(unfinished, { force: true });
  }
}

async function* paced(source: Iterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for (const bytes of source) {
    const startedMs = performance.now();
    // Comes back when it is compressed.
    yield bytes;
    await delay(performance.now() - startedMs, undefined, { ref: false });
  }
}
