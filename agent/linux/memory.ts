// What is in a process's memory: files of its program go back to the kernel, since they can always be read again, and
// what it knows stays out of core files.

import { closeSync, readFileSync } from 'node:fs';
import { check, libcFunctions } from './libc.ts';

// The same on all architectures.
const SYS_PIDFD_OPEN = 434;
const SYS_PROCESS_MADVISE = 440;
const MADV_DONTNEED = 4;
const MADV_PAGEOUT = 21;
const PR_SET_DUMPABLE = 4;
const RANGE_BYTES = 16;
const RANGES_MAX = 1024;

interface MappedRange {
  readonly start: bigint;
  readonly end: bigint;
}

/** The read-only mappings of files in the text of /proc/<pid>/maps. */
export function parseProgramMappings(text: string): MappedRange[] {
  return [...text.matchAll(/^([0-9a-f]+)-([0-9a-f]+) r-.. \S+ \S+ [1-9]\d*/gm)].map((match) => ({
    start: BigInt(`0x${match[1]}`),
    end: BigInt(`0x${match[2]}`),
  }));
}

/**
 * Unmaps the pages of this process's own program, also those that other processes use: read-only mappings of files in
 * which no page was ever written to (relocations are). What runs next is mapped again from the page cache, one minor
 * fault for a few pages.
 */
export function releaseOwnProgram(): void {
  for (const { start, end } of parseUnwrittenMappings(readFileSync('/proc/self/smaps', 'utf8')))
    check(libcFunctions.madvise(start, end - start, MADV_DONTNEED), 'madvise');
}

/** The read-only mappings of files in the text of /proc/<pid>/smaps that hold nothing but what is in the file. */
export function parseUnwrittenMappings(text: string): MappedRange[] {
  const mappings = text.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  return mappings
    .filter((mapping) => /^Anonymous: +0 kB$/m.test(mapping))
    .flatMap((mapping) => parseProgramMappings(mapping.slice(0, mapping.indexOf('\n'))));
}

/** This process leaves no core file when it crashes. Programs that it starts do as before. */
export function forbidCoreFile(): void {
  check(libcFunctions.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 'forbid a core file');
}

/** Drops the resident pages of the process's files; what it still needs is read again. Returns the bytes looked at. */
export function releaseProgramPages(pid: number): number {
  const mappings = parseProgramMappings(readFileSync(`/proc/${pid}/maps`, 'utf8')).slice(0, RANGES_MAX);
  const ranges = Buffer.alloc(mappings.length * RANGE_BYTES);
  for (const [index, { start, end }] of mappings.entries()) {
    ranges.writeBigUInt64LE(start, index * RANGE_BYTES);
    ranges.writeBigUInt64LE(end - start, index * RANGE_BYTES + RANGE_BYTES / 2);
  }
  const pidfd = check(Number(libcFunctions.pidfdOpen(SYS_PIDFD_OPEN, pid, 0)), `open process ${pid}`);
  try {
    const { processMadvise } = libcFunctions;
    const result = processMadvise(SYS_PROCESS_MADVISE, pidfd, ranges, mappings.length, MADV_PAGEOUT, 0);
    return check(Number(result), `advise memory of process ${pid}`);
  } finally {
    closeSync(pidfd);
  }
}
