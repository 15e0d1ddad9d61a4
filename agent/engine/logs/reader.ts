// Reads a container's log back: the last lines or all, older files first, and on as it grows.

import { closeSync } from 'node:fs';
import type { LogQuery, LogRecord } from '../engine.ts';
import {
  FILE_START,
  hasMore,
  type LogFile,
  type LogPlace,
  openLogFile,
  placeBehind,
  placeOfTail,
  recordsOf,
} from './log-file.ts';
import type { LogTailer } from './tailer.ts';

// setTimeout takes no more.
const TIMER_MAX_MS = 2 ** 31 - 1;
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
  // Opened together: what is rotated away while we read stays readable.
  const { files, newest } = openFiles(directory);
  // When the file that is read was the newest.
  let generation = (writer?.generation ?? 0) - newest;
  try {
    const start = await findStart(files, query);
    let current = files[start.firstFile];
    for (let index = start.firstFile; index < files.length - 1; index += 1) {
      yield* within(
        recordsOf(files[index] as LogFile, index === start.firstFile ? start.place : FILE_START),
        query,
      );
      current = files[index + 1];
    }
    let place = start.firstFile === files.length - 1 ? start.place : FILE_START;
    for (;;) {
      if (current !== undefined) {
        let reached = place.offset;
        const noteOffset = (offset: number) => {
          reached = offset;
        };
        yield* within(recordsOf(current, place, noteOffset), query);
        place = { offset: reached, skippedLines: 0 };
      }
      if (query.follow !== true || writer === undefined || query.signal?.aborted) return;
      if (isOver(query)) return;
      if (current !== undefined && hasMore(current, place.offset)) continue;
      // Rotations move our file down: the next one to read is one above it.
      const next = openNext(directory, writer.generation - generation - 1);
      if (next !== undefined) {
        files.push(next.file);
        generation = writer.generation - next.index;
        current = next.file;
        place = FILE_START;
        continue;
      }
      if (!writer.isOpen) return;
      await nextChange(writer, query);
    }
  } finally {
    for (const { fd } of files) closeSync(fd);
  }
}

/** All files there are, oldest first, and how often the newest was rotated: without any, the one before the first. */
function openFiles(directory: string): { files: LogFile[]; newest: number } {
  const files: LogFile[] = [];
  let newest: number | undefined;
  let missing = 0;
  for (let index = 0; index < FILES_MAX && missing <= GAPS_MAX; index += 1) {
    const file = openLogFile(directory, index);
    if (file !== undefined) {
      files.unshift(file);
      newest ??= index;
    }
    // Before the first line, or where a crash cut off a rotation.
    else missing += 1;
  }
  return { files, newest: newest ?? 1 };
}

/** The file `wanted` rotations back, or the oldest that is left. */
function openNext(directory: string, wanted: number): { file: LogFile; index: number } | undefined {
  for (let index = wanted; index >= 0; index -= 1) {
    const file = openLogFile(directory, index);
    if (file !== undefined) return { file, index };
  }
  return undefined;
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

interface LogStart {
  readonly firstFile: number;
  readonly place: LogPlace;
}

async function findStart(files: readonly LogFile[], { tail = -1, after }: LogQuery): Promise<LogStart> {
  let missing = tail;
  for (
    let firstFile = files.length - 1;
    firstFile >= 0 && (after !== undefined || tail >= 0);
    firstFile -= 1
  ) {
    const file = files[firstFile] as LogFile;
    if (after !== undefined) {
      const place = await placeBehind(file, after);
      if (place !== undefined) return { firstFile, place };
      continue;
    }
    const found = await placeOfTail(file, missing);
    if (found.lines === missing) return { firstFile, place: found.place };
    missing -= found.lines;
  }
  return { firstFile: 0, place: FILE_START };
}

async function* within(
  batches: AsyncIterable<readonly LogRecord[]>,
  { sinceMs = 0, untilMs = Number.POSITIVE_INFINITY, after = '' }: LogQuery,
): AsyncIterable<readonly LogRecord[]> {
  const takesAll = sinceMs === 0 && untilMs === Number.POSITIVE_INFINITY && after === '';
  const isWanted = ({ time }: LogRecord) => {
    const ms = Date.parse(time);
    return time > after && ms >= sinceMs && ms <= untilMs;
  };
  for await (const records of batches) {
    const wanted = takesAll ? records : records.filter(isWanted);
    if (wanted.length > 0) yield wanted;
  }
}
