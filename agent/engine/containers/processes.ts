// The processes of a container, as the kernel tells of them.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Machine } from '../machine.ts';
import type { ContainerEntry } from './entry.ts';
import { cgroupsPath } from './spec.ts';

export interface ProcessesOptions {
  readonly engineId: string;
  readonly machine: Pick<Machine, 'cgroupVersion'>;
}

/** Of its own and of all commands that run in it. */
export function processesOf(
  { id, record }: Pick<ContainerEntry, 'id' | 'record'>,
  { machine, engineId }: ProcessesOptions,
): Process[] {
  const hierarchy = machine.cgroupVersion === '2' ? '' : 'memory';
  const group = path.join('/sys/fs/cgroup', hierarchy, record.cgroup ?? cgroupsPath(engineId, id));
  const pids = readIfThere(path.join(group, 'cgroup.procs')).trim().split('\n').map(Number);
  return pids.map(processStat).filter((process) => process !== undefined);
}

export interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
}

/** Undefined when it has ended. From /proc/<pid>/stat, where the program's name may have blanks and parentheses of its own. */
export function processStat(pid: number): Process | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`);
  if (stat === '') return undefined;
  const [_state, parent, _group, session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid, parent: Number(parent), session: Number(session) };
}

function readIfThere(file: string): string {
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
