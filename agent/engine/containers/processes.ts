// The processes of a container, as the kernel tells of them.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { ContainerProcessInfo } from '../engine.ts';
import type { Machine } from '../machine.ts';
import type { ContainerEntry } from './entry.ts';
import { cgroupsPath } from './spec.ts';

// The kernel's ticks for programs, on every architecture.
const TICK_MS = 10;
const FIRST_PTS_MAJOR = 136;

export interface ProcessesOptions {
  readonly engineId: string;
  readonly machine: Pick<Machine, 'cgroupVersion'>;
}

/** Where the kernel has a container's figures; `controller` is of cgroup v1. */
export function cgroupOf(
  { id, record }: Pick<ContainerEntry, 'id' | 'record'>,
  { machine, engineId }: ProcessesOptions,
  controller: string,
): string {
  const hierarchy = machine.cgroupVersion === '2' ? '' : controller;
  return path.join('/sys/fs/cgroup', hierarchy, record.cgroup ?? cgroupsPath(engineId, id));
}

/** Of its own and of all commands that run in it. */
export function processesOf(
  { id, record }: Pick<ContainerEntry, 'id' | 'record'>,
  { machine, engineId }: ProcessesOptions,
): Process[] {
  const group = cgroupOf({ id, record }, { machine, engineId }, 'memory');
  const pids = readIfThere(path.join(group, 'cgroup.procs')).trim().split('\n').map(Number);
  return pids.map(processStat).filter((process) => process !== undefined);
}

export interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
  /** Number of its terminal's device; 0: none. */
  readonly tty: number;
  readonly cpuMs: number;
  readonly startedAtMs: number;
}

/** Undefined when it has ended. From /proc/<pid>/stat, where the program's name may have blanks and parentheses of its own. */
export function processStat(pid: number): Process | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`);
  if (stat === '') return undefined;
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [, parent = 0, , session = 0, tty = 0] = fields;
  // Fields 14, 15 and 22 of proc(5).
  const cpuMs = ((fields[11] ?? 0) + (fields[12] ?? 0)) * TICK_MS;
  const startedAtMs = bootedAtMs() + (fields[19] ?? 0) * TICK_MS;
  return { pid, parent, session, tty, cpuMs, startedAtMs };
}

/** With what `top` shows of it. */
export function describeProcess({ pid, parent, tty, cpuMs, startedAtMs }: Process): ContainerProcessInfo {
  const uid = /^Uid:\t\d+\t(\d+)/m.exec(readIfThere(`/proc/${pid}/status`))?.[1] ?? '';
  const name = readIfThere(`/proc/${pid}/comm`).trim();
  const command = readIfThere(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
  return {
    user: userName(uid),
    pid,
    parentPid: parent,
    startedAtMs,
    tty: tty >> 8 === FIRST_PTS_MAJOR ? `pts/${tty & 0xff}` : '?',
    cpuMs,
    command: command === '' ? `[${name}]` : command,
  };
}

/** On this machine, as `ps` does; a number without a name stays. */
function userName(uid: string): string {
  const line = readIfThere('/etc/passwd')
    .split('\n')
    .find((entry) => entry.split(':')[2] === uid);
  return line?.split(':')[0] ?? uid;
}

function bootedAtMs(): number {
  return Number(/^btime (\d+)/m.exec(readIfThere('/proc/stat'))?.[1] ?? 0) * 1_000;
}

export function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // It has ended.
    return '';
  }
}

export function killProcess({ pid }: Process): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
