// Keeps an idle node small. Much of what a process has read of its program is needed at its start or under load only;
// once it has been quiet for a while, those pages go back to the kernel, and what is needed again is read again.

import { readFileSync } from 'node:fs';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { releaseOwnProgram, releaseProgramPages } from '../agent/linux/memory.ts';
import { messageOf } from '../core/errors.ts';
import { nodeLog } from './log.ts';

const PERIOD_MS = 5_000;
// Clock ticks (10 ms) of CPU in one period, below which a process counts as quiet: 2 %.
const QUIET_TICKS = 10;
// And above which it has worked enough since the last time to be worth another look.
const BUSY_TICKS = 40;
// A full collection of as much takes some ten milliseconds.
const SMALL_HEAP_BYTES = 64 * 2 ** 20;

interface Watched {
  ticks: number;
  ticksAtRelease: number;
}

/**
 * Looks after this process and `others` (pids, asked for anew each time) until the signal aborts. Another process's pages
 * can only be given back by dropping them from the page cache as well, so that is done once, after its start.
 */
export function keepIdleMemoryLow(others: () => readonly number[], signal: AbortSignal): void {
  const watched = new Map<number, Watched>();
  const timer = setInterval(() => {
    try {
      for (const pid of [process.pid, ...others()]) look(pid, watched);
    } catch (error) {
      // Kernels before 5.10 cannot do it, and a process may have ended; it only costs memory.
      nodeLog.debug({ error: messageOf(error) }, 'memory not given back');
    }
  }, PERIOD_MS);
  timer.unref();
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

function look(pid: number, watched: Map<number, Watched>): void {
  const ticks = cpuTicks(pid);
  const known = watched.get(pid);
  if (known === undefined) {
    watched.set(pid, { ticks, ticksAtRelease: ticks - BUSY_TICKS });
    return;
  }
  const isQuiet = ticks - known.ticks < QUIET_TICKS;
  known.ticks = ticks;
  if (!isQuiet || ticks - known.ticksAtRelease < BUSY_TICKS) return;
  known.ticksAtRelease = pid === process.pid ? ticks : Number.POSITIVE_INFINITY;
  if (pid === process.pid) {
    collectGarbage();
    releaseOwnProgram();
  } else releaseProgramPages(pid);
}

/** What new objects took under load goes back; a large heap is left alone, since looking through it is felt. */
function collectGarbage(): void {
  if (getHeapStatistics().used_heap_size > SMALL_HEAP_BYTES) return;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as (options: { readonly type: 'major' }) => void;
  collect({ type: 'major' });
}

/** User and system time of a process, in clock ticks. */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may hold anything; utime and stime are the 14th and 15th fields.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
