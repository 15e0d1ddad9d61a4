// Looks for planted values where they must not be, also in the usual disguises.

import { closeSync, openSync, readdirSync, readFileSync, readSync, statfsSync } from 'node:fs';
import path from 'node:path';

const TMPFS_MAGIC = 0x01021994;

export interface Planted {
  readonly name: string;
  /** At least ten bytes, so that chance does not find it. */
  readonly value: string;
}

/** Name and form of each planted value in the bytes. */
export function findPlanted(bytes: Buffer, planted: readonly Planted[]): string[] {
  return planted.flatMap(({ name, value }) =>
    formsOf(value)
      .filter(([, form]) => bytes.includes(form))
      .map(([kind]) => `${name} as ${kind}`),
  );
}

function formsOf(value: string): (readonly [kind: string, form: string])[] {
  const bytes = Buffer.from(value);
  const base64 = [0, 1, 2].map((shift) => {
    // Only what is the same whatever stands before and behind.
    const text = Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    return text.slice(shift === 0 ? 0 : shift + 1, -2);
  });
  return [
    ['text', value],
    ['hexadecimal', bytes.toString('hex')],
    ['hexadecimal', bytes.toString('hex').toUpperCase()],
    ...base64.map((form) => ['base64', form] as const),
    ...base64.map((form) => ['base64url', form.replaceAll('+', '-').replaceAll('/', '_')] as const),
    ['a list of bytes', [...bytes].join(',')],
  ];
}

export interface Finding {
  readonly place: string;
  readonly what: string;
}

/** In all files below, also those in memory unless `skipsMemory`. Directories of `except` are left out. */
export function searchFiles(
  directory: string,
  planted: readonly Planted[],
  { except = [] as readonly string[], skipsMemory = false } = {},
): { readonly findings: Finding[]; readonly fileCount: number } {
  const findings: Finding[] = [];
  let fileCount = 0;
  const visit = (place: string) => {
    if (except.includes(place) || (skipsMemory && statfsSync(place).type === TMPFS_MAGIC)) return;
    for (const entry of readdirSync(place, { withFileTypes: true })) {
      const file = path.join(place, entry.name);
      if (entry.isDirectory()) visit(file);
      else if (entry.isFile()) {
        fileCount++;
        findings.push(...findPlanted(readGone(file), planted).map((what) => ({ place: file, what })));
      }
    }
  };
  visit(directory);
  return { findings, fileCount };
}

/** In command lines and environments of all processes of the machine. */
export function searchProcesses(planted: readonly Planted[]): Finding[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) =>
    ['cmdline', 'environ'].flatMap((name) => {
      const place = `/proc/${pid}/${name}`;
      return findPlanted(readGone(place), planted).map((what) => ({ place, what }));
    }),
  );
}

/** In what a process has written to its memory. */
export function searchMemory(pid: number, planted: readonly Planted[]): string[] {
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8');
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    return [...maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)].flatMap(([, start, end]) =>
      findPlanted(readMemory(memory, BigInt(`0x${start}`), BigInt(`0x${end}`)), planted),
    );
  } finally {
    closeSync(memory);
  }
}

function readMemory(memory: number, start: bigint, end: bigint): Buffer {
  const bytes = Buffer.alloc(Number(end - start));
  try {
    return bytes.subarray(0, readSync(memory, bytes, 0, bytes.length, start));
  } catch {
    // Mapped, but of a device or gone by now.
    return Buffer.alloc(0);
  }
}

/** Empty when it has gone meanwhile. */
function readGone(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.alloc(0);
  }
}
