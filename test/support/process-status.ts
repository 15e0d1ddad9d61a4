// What the kernel says of a process: its memory, and which manager a daemon has started.

import { readdirSync, readFileSync } from 'node:fs';

/** A field of proc(5), status: `VmRSS` is the resident memory, `VmHWM` the highest it was. In KiB. */
export function statusKib(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
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
