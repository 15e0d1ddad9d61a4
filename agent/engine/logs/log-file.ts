// One file of a container's log, as it is written or compressed: its lines from a place on, and where such places are.

import { existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { messageOf } from '../../../core/errors.ts';
import type { LogRecord } from '../engine.ts';
import { compressedPath, formatLine, logPath } from './json-log.ts';

export interface LogFile {
  readonly fd: number;
  readonly name: string;
  readonly isCompressed: boolean;
}

/** Where to begin in a file; of a compressed one only the lines can be counted. */
export interface LogPlace {
  readonly offset: number;
  readonly skippedLines: number;
}

export const FILE_START: LogPlace = { offset: 0, skippedLines: 0 };

// What each reader holds: there may be a thousand.
const CHUNK_BYTES = 16 * 1024;
// Reading is synchronous: one for all.
const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
const NEWLINE = 10;

/** The file that was rotated so many times; undefined when there is none. */
export function openLogFile(directory: string, index: number): LogFile | undefined {
  for (const isCompressed of [false, true]) {
    const name = isCompressed ? compressedPath(directory, index) : logPath(directory, index);
    if (existsSync(name)) return { fd: openSync(name, 'r'), name, isCompressed };
  }
  return undefined;
}

/** Something was written behind the offset. Compressed files do not grow. */
export function hasMore({ fd, isCompressed }: LogFile, offset: number): boolean {
  return !isCompressed && fstatSync(fd).size > offset;
}

/** The records from a place to the end of the file as it is when it is reached; `onOffset` hears how far it came. */
export async function* recordsOf(
  file: LogFile,
  place: LogPlace,
  onOffset: (reached: number) => void = () => {},
): AsyncIterable<readonly LogRecord[]> {
  if (!file.isCompressed) {
    yield* recordsFrom(file.fd, place.offset, onOffset);
    return;
  }
  let skipped = 0;
  for await (const lines of linesOfCompressed(file)) {
    const wanted = lines.slice(Math.max(0, place.skippedLines - skipped));
    skipped += lines.length - wanted.length;
    yield wanted.map(parseRecord).filter((record) => record !== undefined);
  }
}

/** Where the last `count` lines begin, and how many there are at most. */
export async function placeOfTail(
  file: LogFile,
  count: number,
): Promise<{ readonly lines: number; readonly place: LogPlace }> {
  if (!file.isCompressed) {
    const { lines, offset } = offsetOfTail(file.fd, fstatSync(file.fd).size, count);
    return { lines, place: { offset, skippedLines: 0 } };
  }
  let total = 0;
  for await (const lines of linesOfCompressed(file)) total += lines.length;
  const lines = Math.min(total, count);
  return { lines, place: { offset: 0, skippedLines: total - lines } };
}

/** A place before the first line that is later than `after`; undefined when such a line may be in an older file. */
export async function placeBehind(file: LogFile, after: string): Promise<LogPlace | undefined> {
  const first = await firstRecord(file);
  if (first === undefined || first.time > after) return undefined;
  if (file.isCompressed) return FILE_START;
  const { size } = fstatSync(file.fd);
  for (let step = CHUNK_BYTES; step < size; step *= 4) {
    // Mid-line, as a rule: the rest of that line is no record.
    const offset = size - step;
    const [record] = firstOf(recordsFrom(file.fd, offset)) ?? [];
    if (record !== undefined && record.time <= after) return { offset, skippedLines: 0 };
  }
  return FILE_START;
}

async function firstRecord(file: LogFile): Promise<LogRecord | undefined> {
  for await (const records of recordsOf(file, FILE_START)) if (records.length > 0) return records[0];
  return undefined;
}

function firstOf(batches: Iterable<readonly LogRecord[]>): readonly LogRecord[] | undefined {
  for (const records of batches) if (records.length > 0) return records;
  return undefined;
}

/** A file that is damaged ends there, and says so. */
async function* linesOfCompressed({ fd, name }: LogFile): AsyncIterable<readonly string[]> {
  const unpacked = createGunzip({ chunkSize: CHUNK_BYTES });
  let rest = Buffer.alloc(0);
  let time = new Date(fstatSync(fd).mtimeMs).toISOString();
  try {
    for await (const bytes of Readable.from(chunksOf(fd, CHUNK_BYTES)).pipe(unpacked)) {
      const text = Buffer.concat([rest, bytes as Buffer]);
      const end = text.lastIndexOf(NEWLINE) + 1;
      rest = Buffer.from(text.subarray(end));
      if (end === 0) continue;
      const lines = text.toString('utf8', 0, end - 1).split('\n');
      time = parseRecord(lines.at(-1) ?? '')?.time ?? time;
      yield lines;
    }
  } catch (error) {
    const note = `[tsswarm: the rest of ${name} cannot be read: ${messageOf(error)}]\n`;
    yield [formatLine('stderr', note, time).trimEnd()];
  } finally {
    unpacked.destroy();
  }
}

/** A file's bytes, from its beginning. A stream would close the file when it is given up. */
export function* chunksOf(fd: number, chunkBytes: number): Iterable<Uint8Array> {
  for (let at = 0; ; ) {
    const bytes = Buffer.allocUnsafe(chunkBytes);
    const length = readSync(fd, bytes, 0, chunkBytes, at);
    if (length === 0) return;
    at += length;
    yield bytes.subarray(0, length);
  }
}

function* recordsFrom(
  fd: number,
  offset: number,
  onOffset: (reached: number) => void = () => {},
): Iterable<readonly LogRecord[]> {
  let at = offset;
  let rest: Buffer = Buffer.alloc(0);
  for (;;) {
    const length = readSync(fd, chunk, 0, chunk.length, at + rest.length);
    if (length === 0) return;
    const bytes = Buffer.concat([rest, chunk.subarray(0, length)]);
    const records: LogRecord[] = [];
    let start = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
      const record = parseRecord(bytes.toString('utf8', start, end));
      at += end + 1 - start;
      start = end + 1;
      if (record !== undefined) records.push(record);
    }
    rest = Buffer.from(bytes.subarray(start));
    onOffset(at);
    yield records;
  }
}

function offsetOfTail(fd: number, size: number, count: number): { lines: number; offset: number } {
  if (count === 0) return { lines: 0, offset: size };
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  let lines = 0;
  // The newline that ends the last line begins no further one.
  let end = size - 1;
  while (end > 0) {
    const start = Math.max(0, end - CHUNK_BYTES);
    readSync(fd, buffer, 0, end - start, start);
    for (let at = end - start - 1; at >= 0; at -= 1) {
      if (buffer[at] !== NEWLINE) continue;
      lines += 1;
      if (lines === count) return { lines, offset: start + at + 1 };
    }
    end = start;
  }
  return { lines: size > 0 ? lines + 1 : 0, offset: 0 };
}

function parseRecord(text: string): LogRecord | undefined {
  try {
    const { log, stream, time, attrs } = JSON.parse(text) as {
      log: string;
      stream: LogRecord['stream'];
      time: string;
      attrs?: Readonly<Record<string, string>>;
    };
    return { stream, time, line: log, ...(attrs && { details: attrs }) };
  } catch {
    // A line torn by a power failure.
    return undefined;
  }
}
