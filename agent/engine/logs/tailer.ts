// Moves what a container writes from its spool files into its log, exactly once. The shim appends to the spool whether
// or not this process lives; what has been read is noted after every write and punched out of the spool.

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { messageOf } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { check, libcFunctions } from '../../linux/libc.ts';
import type { LogSettings } from '../engine.ts';
import { formatAttrs, formatLine, JsonLog, LineClock, type LogStream } from './json-log.ts';
import type { LineSink } from './line-sink.ts';

export interface SpoolPaths {
  readonly stdout: string;
  readonly stderr: string;
}

export interface TailerOptions {
  readonly spool: SpoolPaths;
  /** Where the log and its state lie. */
  readonly directory: string;
  readonly settings: LogSettings;
  readonly log: Logger;
  /** Where lines go as well. */
  readonly sink?: LineSink | undefined;
  /** Told of lines that the sink did not take. */
  readonly onDropped?: (lines: number) => void;
  /** A file of the log has got another name. */
  readonly onRotated?: () => void;
  /** The machine's clock. */
  readonly nowMs?: () => number;
}

interface TailState {
  readonly stdout: number;
  readonly stderr: number;
  readonly sizeBytes: number;
  /** Time of the last line; states of older versions have none. */
  readonly lastMs?: number;
}

interface SpoolReader {
  readonly stream: LogStream;
  readonly fd: number;
  offset: number;
  punched: number;
}

const READ_BYTES = 256 * 1024;
// As in Docker: a longer line without an end is cut.
const LINE_BYTES_MAX = 16 * 1024;
// Punching costs a system call and an update of the file's extents.
const PUNCH_BYTES = 4 * 2 ** 20;
const PAGE_BYTES = 4096;
/** Unread output beyond this is given up: the disk must not fill because a container writes faster than we read. */
const LAG_BYTES_MAX = 64 * 2 ** 20;
const STATE_LENGTH = 128;
const NOTE_PERIOD_MS = 10_000;
const FALLOCATE_PUNCH_KEEPING_SIZE = 3;
const NEWLINE = 10;

// One buffer for all: reading is synchronous.
const readBuffer = Buffer.allocUnsafe(READ_BYTES);

export function stateFile(directory: string): string {
  return path.join(directory, 'log.state');
}

function readState(directory: string): TailState | undefined {
  try {
    return JSON.parse(readFileSync(stateFile(directory), 'utf8')) as TailState;
  } catch {
    // Absent: nothing read yet. Torn by a power failure: what is in the spool may have been read.
    return undefined;
  }
}

export class LogTailer {
  readonly #options: TailerOptions;
  readonly #readers: SpoolReader[];
  readonly #json: JsonLog;
  #stateFd: number | undefined;
  readonly #attrs: string;
  readonly #lineClock: LineClock;
  #nextNoteMs = 0;
  #untoldDrops = 0;
  readonly #listeners = new Set<() => void>();
  #isOpen = true;

  constructor(options: TailerOptions) {
    this.#options = options;
    this.#attrs = formatAttrs(options.settings.details);
    const known = readState(options.directory);
    const state: TailState = known ?? { stdout: 0, stderr: 0, sizeBytes: 0 };
    this.#readers = (['stdout', 'stderr'] as const).map((stream) => ({
      stream,
      fd: openSync(options.spool[stream], 'r+'),
      offset: state[stream],
      punched: state[stream],
    }));
    this.#lineClock = new LineClock(state.lastMs ?? 0, options.nowMs ?? Date.now);
    this.#json = new JsonLog(options.directory, options.settings, state.sizeBytes);
    if (known !== undefined) this.#save();
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** What has been read up to here may be gone from the spool. */
  punchedBytes(stream: LogStream): number {
    return this.#readers.find((reader) => reader.stream === stream)?.punched ?? 0;
  }

  get generation(): number {
    return this.#json.generation;
  }

  /** Calls back after lines were written and when the log ends; the returned function stops it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads at most one buffer of each stream; true when there may be more. */
  pump(): boolean {
    if (!this.#isOpen) return false;
    let hasMore = false;
    let hasWritten = false;
    for (const reader of this.#readers) {
      const before = reader.offset;
      hasMore = this.#pumpStream(reader, false) || hasMore;
      hasWritten ||= reader.offset > before;
    }
    this.#noteDrops();
    if (hasWritten) this.#notify();
    return hasMore;
  }

  /** Reads all that is there now. */
  drain(): void {
    while (this.pump());
  }

  /** The container has ended and its shim has written everything: reads the rest, an unfinished line too, and closes. */
  finish(): void {
    if (!this.#isOpen) return;
    this.drain();
    for (const reader of this.#readers) while (this.#pumpStream(reader, true));
    this.close();
    for (const file of [this.#options.spool.stdout, this.#options.spool.stderr])
      rmSync(file, { force: true });
  }

  /** Lets go of the files; a new tailer goes on from here. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const { fd } of this.#readers) closeSync(fd);
    this.#noteDrops();
    void this.#options.sink?.finish();
    this.#json.close();
    if (this.#stateFd !== undefined) closeSync(this.#stateFd);
    this.#notify();
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #pumpStream(reader: SpoolReader, isFinal: boolean): boolean {
    try {
      this.#skipBacklog(reader);
      const length = readSync(reader.fd, readBuffer, 0, READ_BYTES, reader.offset);
      if (length === 0) return false;
      const end = completeLength(readBuffer, length, isFinal);
      if (end === 0) return false;
      this.#write(reader, readBuffer.subarray(0, end));
      this.#punch(reader);
      return length === READ_BYTES || end < length;
    } catch (error) {
      // A full disk, most likely. The output stays in the spool until the next attempt.
      this.#options.log.error(
        { reason: messageOf(error), directory: this.#options.directory },
        'log not written',
      );
      return false;
    }
  }

  /** Writes whole lines; a rotation in between notes how far it got. */
  #write(reader: SpoolReader, bytes: Buffer): void {
    const { sink, settings } = this.#options;
    const { keepsFile } = settings;
    const start = reader.offset;
    let pending = '';
    let at = 0;
    const flush = () => {
      if (pending !== '' && keepsFile !== false) this.#json.append(pending);
      pending = '';
      reader.offset = start + at;
      this.#save();
    };
    while (at < bytes.length) {
      if (pending.length >= this.#json.roomBytes) {
        flush();
        if (this.#json.isFull) this.#rotate();
      }
      const newline = bytes.indexOf(NEWLINE, at);
      const next = newline < 0 ? bytes.length : newline + 1;
      const line = bytes.toString('utf8', at, next);
      const time = this.#lineClock.next();
      if (keepsFile !== false) pending += formatLine(reader.stream, line, time, this.#attrs);
      sink?.write({ stream: reader.stream, line, time });
      at = next;
    }
    flush();
  }

  #rotate(): void {
    this.#json.rotate(() => this.#save());
    this.#options.onRotated?.();
  }

  /** Counts what the sink did not take, and says so in the log, not with every line. */
  #noteDrops(): void {
    const { sink, onDropped, settings } = this.#options;
    const dropped = sink?.takeDropped() ?? 0;
    if (dropped > 0) onDropped?.(dropped);
    this.#untoldDrops += dropped;
    if (this.#untoldDrops === 0 || settings.keepsFile === false || performance.now() < this.#nextNoteMs)
      return;
    const line = `[tsswarm: ${this.#untoldDrops} lines were dropped, ${settings.target?.kind ?? 'the log driver'} does not take them]\n`;
    this.#json.append(formatLine('stderr', line, this.#lineClock.next()));
    this.#save();
    this.#untoldDrops = 0;
    this.#nextNoteMs = performance.now() + NOTE_PERIOD_MS;
  }

  #skipBacklog(reader: SpoolReader): void {
    const { size } = fstatSync(reader.fd);
    const lag = size - reader.offset;
    if (lag <= LAG_BYTES_MAX) return;
    const dropped = lag - READ_BYTES;
    const line = `[tsswarm: dropped ${dropped} bytes of output that came faster than it could be stored]\n`;
    this.#json.append(formatLine(reader.stream, line, this.#lineClock.next()));
    reader.offset += dropped;
    this.#save();
    this.#punch(reader);
  }

  #punch(reader: SpoolReader): void {
    if (reader.offset - reader.punched < PUNCH_BYTES) return;
    const end = reader.offset - (reader.offset % PAGE_BYTES);
    const start = reader.punched - (reader.punched % PAGE_BYTES);
    const result = libcFunctions.fallocate(reader.fd, FALLOCATE_PUNCH_KEEPING_SIZE, start, end - start);
    check(result, 'punch spool file');
    reader.punched = end;
  }

  #save(): void {
    const [stdout, stderr] = this.#readers.map(({ offset }) => offset);
    const state = JSON.stringify({
      stdout,
      stderr,
      sizeBytes: this.#json.sizeBytes,
      lastMs: this.#lineClock.lastMs,
    });
    this.#stateFd ??= openSync(stateFile(this.#options.directory), constants.O_RDWR | constants.O_CREAT);
    writeSync(this.#stateFd, state.padEnd(STATE_LENGTH), 0);
  }
}

/** How much of the bytes can be written: up to the last newline, or all when a line is too long or nothing follows. */
function completeLength(bytes: Buffer, length: number, isFinal: boolean): number {
  const newline = bytes.subarray(0, length).lastIndexOf(NEWLINE);
  if (newline >= 0) return newline + 1;
  if (isFinal) return length;
  if (length < LINE_BYTES_MAX) return 0;
  // Not in the middle of a character.
  let end = Math.min(length, LINE_BYTES_MAX);
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return end;
}
