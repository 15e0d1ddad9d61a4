// Docker's json-file format with rotation: current lines in `log.json`, older ones in `log.json.1` and so on.

import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import type { LogSettings } from '../engine.ts';

export type LogStream = 'stdout' | 'stderr';

export function logPath(directory: string, index: number): string {
  return path.join(directory, index === 0 ? 'log.json' : `log.json.${index}`);
}

/** Where it lies once it is compressed. */
export function compressedPath(directory: string, index: number): string {
  return `${logPath(directory, index)}.gz`;
}

/**
 * Times that never repeat, in nanoseconds, and never go back, whatever the machine's clock does: lines keep their order when
 * they are sorted by time.
 */
export class LineClock {
  readonly #nowMs: () => number;
  #lastMs: number;
  #prefix = '';
  #serial = 0;

  /** `lastMs` is of the last line that there is already; 0: there is none. */
  constructor(lastMs: number, nowMs: () => number) {
    this.#lastMs = lastMs;
    this.#serial = 999_999;
    this.#nowMs = nowMs;
  }

  /** Of the last time given, in milliseconds. */
  get lastMs(): number {
    return this.#lastMs;
  }

  next(): string {
    const nowMs = this.#nowMs();
    if (nowMs > this.#lastMs || this.#serial >= 999_999) {
      this.#lastMs = Math.max(nowMs, this.#serial >= 999_999 ? this.#lastMs + 1 : nowMs);
      this.#prefix = new Date(this.#lastMs).toISOString().slice(0, -1);
      this.#serial = 0;
    } else this.#serial += 1;
    return `${this.#prefix}${String(this.#serial).padStart(6, '0')}Z`;
  }
}

/** `attrs` is JSON with its name and comma, or empty. */
export function formatLine(stream: LogStream, line: string, time: string, attrs = ''): string {
  return `{"log":${JSON.stringify(line)},"stream":"${stream}",${attrs}"time":"${time}"}\n`;
}

/** Docker's place for what a container says of itself. */
export function formatAttrs(details: Readonly<Record<string, string>> = {}): string {
  return Object.keys(details).length === 0 ? '' : `"attrs":${JSON.stringify(details)},`;
}

/** As written, and compressed. After a crash both may be there, and only the first counts. */
function formsOf(directory: string, index: number): readonly string[] {
  return [logPath(directory, index), compressedPath(directory, index)];
}

/** The writing end. Who writes notes `sizeBytes` elsewhere, and what goes beyond it is cut off at the next opening. */
export class JsonLog {
  readonly #directory: string;
  readonly #settings: LogSettings;
  /** The file is made with its first line: many containers say nothing. */
  #fd: number | undefined;
  #sizeBytes: number;
  #generation = 0;

  /** `knownBytes` is how much of the current file is known to be good. */
  constructor(directory: string, settings: LogSettings, knownBytes: number) {
    this.#directory = directory;
    this.#settings = settings;
    const file = logPath(directory, 0);
    // A rotation was cut off right after its rename: the known size belongs to the renamed file.
    this.#sizeBytes = 0;
    if (!existsSync(file)) return;
    this.#fd = openSync(file, 'a', 0o640);
    this.#sizeBytes = Math.min(knownBytes, fstatSync(this.#fd).size);
    ftruncateSync(this.#fd, this.#sizeBytes);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Grows with each rotation. */
  get generation(): number {
    return this.#generation;
  }

  get isFull(): boolean {
    return this.#settings.maxSizeBytes > 0 && this.#sizeBytes >= this.#settings.maxSizeBytes;
  }

  /** How many bytes go in before the file is full; at least one line always does. */
  get roomBytes(): number {
    return this.#settings.maxSizeBytes > 0
      ? this.#settings.maxSizeBytes - this.#sizeBytes
      : Number.POSITIVE_INFINITY;
  }

  append(text: string): void {
    const bytes = Buffer.from(text);
    const fd = this.#fd ?? openSync(logPath(this.#directory, 0), 'a', 0o640);
    this.#fd = fd;
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    } catch (error) {
      // Half a line on a full disk must not stay.
      ftruncateSync(fd, this.#sizeBytes);
      throw error;
    }
    this.#sizeBytes += bytes.length;
  }

  /** Starts a new file. `onEmpty` must note the size 0 before anything is written to it. */
  rotate(onEmpty: () => void): void {
    this.close();
    const kept = Math.max(1, this.#settings.maxFiles);
    // A rotation that a crash cut off left a gap: the files in front of it fill it, those behind stay.
    let free = 1;
    while (free < kept - 1 && formsOf(this.#directory, free).some(existsSync)) free += 1;
    for (let index = Math.min(free, kept - 1); index >= 1; index -= 1) this.#moveDown(index);
    if (kept === 1) rmSync(logPath(this.#directory, 0), { force: true });
    this.#sizeBytes = 0;
    this.#generation += 1;
    onEmpty();
  }

  /** What lies one above comes to this place, compressed or not; what is there goes. */
  #moveDown(index: number): void {
    const above = formsOf(this.#directory, index - 1);
    const here = formsOf(this.#directory, index);
    const form = above.findIndex(existsSync);
    if (form < 0) return;
    renameSync(above[form] as string, here[form] as string);
    for (const other of [...above, ...here]) if (other !== here[form]) rmSync(other, { force: true });
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
