// Reads a container's log back: the last lines or all, older files first, and on as it grows.

import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import type { LogQuery, LogRecord } from '../engine.ts';
import { logPath } from './json-log.ts';
import type { LogTailer } from './tailer.ts';

// What each reader holds: there may be a thousand.
const CHUNK_BYTES = 16 * 1024;
// Reading is synchronous: one for all.
const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
// setTimeout takes no more.
const TIMER_MAX_MS = 2 ** 31 - 1;
const NEWLINE = 10;
// More than anyone keeps; the search for files stops at the first gap anyway.
const FILES_MAX = 10_000;
/** Crashes that each cut off a rotation; the next one that is not cut off closes a gap. */
const GAPS_MAX = 16;

/** What the reader needs to know of the writing side; undefined when nothing is written any more. */
export type LogWriter = Pick<LogTailer, 'isOpen' | 'generation' | 'onChange'>;

/** Yields what one read of a file gives at a time, in the order of their times. */
export async function* readLog(
  directory: string,
  writer: LogWriter | undefined,
  query: LogQuery,
): AsyncIterable<readonly LogRecord[]> {
  let generation = writer?.generation ?? 0;
  // Opened together: what is rotated away while we read stays readable.
  const files = openFiles(directory);
  try {
    const { firstFile, offset } = findTail(files, query.tail ?? -1);
    const newest = files.length - 1;
    for (let index = firstFile; index < newest; index += 1)
      yield* within(parsedLines(files[index] as number, index === firstFile ? offset : 0), query);
    let position = { fd: files[newest], offset: firstFile === newest ? offset : 0 };
    for (;;) {
      if (position.fd !== undefined) {
        const fd = position.fd;
        let end = position.offset;
        yield* within(
          parsedLines(fd, position.offset, (reached) => {
            end = reached;
          }),
          query,
        );
        position = { fd, offset: end };
      }
      if (query.follow !== true || writer === undefined || query.signal?.aborted) return;
      if (isOver(query)) return;
      // Rotations move our file down: the next one to read is one above it.
      const behind = writer.generation - generation;
      if (behind > 0 || (position.fd === undefined && existsSync(logPath(directory, 0)))) {
        if (position.fd !== undefined && hasMore(position.fd, position.offset)) continue;
        const next = openNext(directory, Math.max(behind - 1, 0));
        if (next === undefined) return;
        files.push(next.fd);
        generation = writer.generation - next.index;
        position = { fd: next.fd, offset: 0 };
        continue;
      }
      if (position.fd !== undefined && hasMore(position.fd, position.offset)) continue;
      if (!writer.isOpen) return;
      await nextChange(writer, query);
    }
  } finally {
    for (const fd of files) closeSync(fd);
  }
}

/** All files there are, oldest first. */
function openFiles(directory: string): number[] {
  const files: number[] = [];
  let missing = 0;
  for (let index = 0; index < FILES_MAX && missing <= GAPS_MAX; index += 1) {
    const file = logPath(directory, index);
    if (existsSync(file)) files.unshift(openSync(file, 'r'));
    // Before the first line, or where a crash cut off a rotation.
    else missing += 1;
  }
  return files;
}

/** The file `wanted` rotations back, or the oldest that is left. */
function openNext(directory: string, wanted: number): { fd: number; index: number } | undefined {
  for (let index = wanted; index >= 0; index -= 1) {
    const file = logPath(directory, index);
    if (existsSync(file)) return { fd: openSync(file, 'r'), index };
  }
  return undefined;
}

function hasMore(fd: number, offset: number): boolean {
  return fstatSync(fd).size > offset;
}

function isOver({ untilMs }: LogQuery): boolean {
  return untilMs !== undefined && Date.now() > untilMs;
}

async function nextChange(writer: LogWriter, { signal, untilMs }: LogQuery): Promise<void> {
  await new Promise<void>((resolve) => {
    const remainingMs = untilMs === undefined ? TIMER_MAX_MS : untilMs + 1 - Date.now();
    const timer = setTimeout(() => done(), Math.min(Math.max(remainingMs, 0), TIMER_MAX_MS)).unref();
    const done = () => {
      clearTimeout(timer);
      stop();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const stop = writer.onChange(done);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/** Where the last `count` lines begin; at the very start when `count` is negative. */
function findTail(files: readonly number[], count: number): { firstFile: number; offset: number } {
  if (count < 0) return { firstFile: 0, offset: 0 };
  let missing = count;
  for (let index = files.length - 1; index >= 0; index -= 1) {
    const fd = files[index] as number;
    const { size } = fstatSync(fd);
    if (missing === 0) return { firstFile: index, offset: size };
    const found = offsetOfTail(fd, size, missing);
    if (found.lines === missing) return { firstFile: index, offset: found.offset };
    missing -= found.lines;
  }
  return { firstFile: 0, offset: 0 };
}

function offsetOfTail(fd: number, size: number, count: number): { lines: number; offset: number } {
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

/** The records from an offset to the end of the file as it is when it is reached. */
function* parsedLines(
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

function* within(
  batches: Iterable<readonly LogRecord[]>,
  { sinceMs, untilMs }: LogQuery,
): Iterable<readonly LogRecord[]> {
  for (const records of batches) {
    const isWanted = ({ time }: LogRecord) => {
      const ms = Date.parse(time);
      return ms >= (sinceMs ?? 0) && ms <= (untilMs ?? Number.POSITIVE_INFINITY);
    };
    const wanted = sinceMs === undefined && untilMs === undefined ? records : records.filter(isWanted);
    if (wanted.length > 0) yield wanted;
  }
}
