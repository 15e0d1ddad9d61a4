// What a container writes, as it writes it: read from its spool files beside the tailer, from where they end now.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { OutputChunk } from '../engine.ts';
import type { LogTailer, SpoolPaths } from './tailer.ts';

export interface SpoolWatch {
  readonly tailer: Pick<LogTailer, 'isOpen' | 'punchedBytes'>;
  /** Calls back when something may have been written, and when the tailer has closed; the returned function stops it. */
  readonly onWritten: (listener: () => void) => () => void;
  readonly signal: AbortSignal;
}

const CHUNK_BYTES = 16 * 1024;

/** Ends with the tailer, when all is read, or when the signal aborts. A reader who is much too slow is told what he missed. */
export async function* readSpool(
  paths: SpoolPaths,
  { tailer, onWritten, signal }: SpoolWatch,
): AsyncGenerator<OutputChunk, void, undefined> {
  const spools = (['stdout', 'stderr'] as const).map((stream) => {
    const fd = openSync(paths[stream], 'r');
    return { stream, fd, offset: fstatSync(fd).size };
  });
  let hasNews = true;
  let wake = () => {};
  const hear = () => {
    hasNews = true;
    wake();
  };
  const stop = onWritten(hear);
  signal.addEventListener('abort', hear);
  try {
    while (!signal.aborted) {
      const isLast = !tailer.isOpen;
      hasNews = false;
      let hasRead = false;
      for (const spool of spools) {
        const data = readNext(spool, tailer.punchedBytes(spool.stream));
        if (data === undefined) continue;
        hasRead = true;
        yield { stream: spool.stream, data };
      }
      if (hasRead || hasNews) continue;
      if (isLast) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    stop();
    signal.removeEventListener('abort', hear);
    for (const { fd } of spools) closeSync(fd);
  }
}

interface Spool {
  readonly fd: number;
  offset: number;
}

function readNext(spool: Spool, punchedBytes: number): Uint8Array | undefined {
  const missed = punchedBytes - spool.offset;
  if (missed > 0) {
    spool.offset += missed;
    return Buffer.from(`\r\n[tsswarm: ${missed} bytes came faster than they were read]\r\n`);
  }
  const data = Buffer.allocUnsafe(CHUNK_BYTES);
  const length = readSync(spool.fd, data, 0, CHUNK_BYTES, spool.offset);
  spool.offset += length;
  return length === 0 ? undefined : data.subarray(0, length);
}
