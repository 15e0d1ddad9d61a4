// What a container uses, from its cgroup and the network devices of its namespace.

import os from 'node:os';
import path from 'node:path';
import type { ContainerStats } from '../engine.ts';
import type { ContainerEntry } from './entry.ts';
import { cgroupOf, type ProcessesOptions, readIfThere } from './processes.ts';

type Figures = Omit<ContainerStats, 'timeMs' | 'receivedBytes' | 'sentBytes'>;

export function readStats(
  entry: Pick<ContainerEntry, 'id' | 'record'>,
  pid: number,
  options: ProcessesOptions,
): ContainerStats {
  const read = (controller: string, file: string) =>
    readIfThere(path.join(cgroupOf(entry, options, controller), file));
  const figures = options.machine.cgroupVersion === '2' ? unified(read) : legacy(read);
  return { timeMs: steadyTimeMs(), ...figures, ...networkBytes(readIfThere(`/proc/${pid}/net/dev`)) };
}

type Read = (controller: string, file: string) => string;

function unified(read: Read): Figures {
  const field = (file: string, name: string) => fieldOf(read('', file), name);
  const io = read('', 'io.stat');
  return {
    cpuNanos: field('cpu.stat', 'usage_usec') * 1_000,
    memoryBytes: Math.max(0, Number(read('', 'memory.current')) - field('memory.stat', 'inactive_file')),
    memoryLimitBytes: limitOf(read('', 'memory.max')),
    pids: Number(read('', 'pids.current')),
    readBytes: sumOf(io, /rbytes=(\d+)/g),
    writtenBytes: sumOf(io, /wbytes=(\d+)/g),
  };
}

function legacy(read: Read): Figures {
  const inactive = fieldOf(read('memory', 'memory.stat'), 'total_inactive_file');
  const io = read('blkio', 'blkio.throttle.io_service_bytes_recursive');
  return {
    cpuNanos: Number(read('cpuacct', 'cpuacct.usage')),
    memoryBytes: Math.max(0, Number(read('memory', 'memory.usage_in_bytes')) - inactive),
    memoryLimitBytes: limitOf(read('memory', 'memory.limit_in_bytes')),
    pids: Number(read('pids', 'pids.current')),
    readBytes: sumOf(io, /Read (\d+)/g),
    writtenBytes: sumOf(io, /Write (\d+)/g),
  };
}

/** Of "name value" lines. */
function fieldOf(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1] ?? 0);
}

function sumOf(text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].reduce((sum, match) => sum + Number(match[1]), 0);
}

/** "max", and the large numbers that cgroup v1 has for it, are the machine's memory. */
function limitOf(text: string): number {
  const limit = Number(text.trim() || Number.NaN);
  return limit > 0 && limit < os.totalmem() ? limit : os.totalmem();
}

/** Of all devices but the loopback. */
export function networkBytes(text: string): Pick<ContainerStats, 'receivedBytes' | 'sentBytes'> {
  const rows = text
    .split('\n')
    .map((line) => /^\s*([^:\s]+):\s*(.*)$/.exec(line))
    .filter((match) => match !== null && match[1] !== 'lo')
    .map((match) => (match?.[2] ?? '').split(/\s+/).map(Number));
  const sum = (column: number) => rows.reduce((total, row) => total + (row[column] ?? 0), 0);
  return { receivedBytes: sum(0), sentBytes: sum(8) };
}

/** Rates are made of two of these: it never jumps, and is the time of day unless somebody has set the clock. */
function steadyTimeMs(): number {
  return Math.round(performance.timeOrigin + performance.now());
}
