// What the kernel says of a process: its memory, and which manager a daemon has started.

import { readdirSync, readFileSync } from 'node:fs';

/** A field of proc(5), status: `VmRSS` is the resident memory, `VmHWM` the highest it was. In KiB. */
export function statusKib(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
}

/** Processor time that the process has used, by all its threads. In milliseconds, of which the kernel counts ten at a time. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The fields after the name, which may have spaces in it: utime and stime are the 14th and 15th of all, in ticks of 10 ms.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** Undefined while there is none. */
export function managerPidOf(daemonPid: number): number | undefined {
  const children = readdirSync(`/proc/${daemonPid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${daemonPid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean),
  );
  const pid = children.find(isManager);
  return pid === undefined ? undefined : Number(pid);
}

function isManager(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('manager-process');
  } catch {
    // It ended while we looked.
    return false;
  }
}
