// Shims that outlived their last container. A grouped shim ends with it, unless its removal and another container's
// start cross inside containerd 1.6: then an empty one stays, about one in a hundred engines.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const SHIM = 'containerd-shim-runc-v2';

/** Ends the shims of a containerd namespace that have no process below them; returns their pids. */
export function endIdleShims(namespace: string): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const parents = new Set(pids.map(parentOf));
  const idle = pids.filter((pid) => !parents.has(pid) && isShimOf(pid, namespace)).map(Number);
  for (const pid of idle) process.kill(pid, 'SIGKILL');
  return idle;
}

function isShimOf(pid: string, namespace: string): boolean {
  const words = readProcessFile(pid, 'cmdline').split('\0');
  const position = words.indexOf('-namespace');
  return path.basename(words[0] ?? '') === SHIM && position > 0 && words[position + 1] === namespace;
}

function parentOf(pid: string): string {
  return /^PPid:\s+(\d+)/m.exec(readProcessFile(pid, 'status'))?.[1] ?? '';
}

function readProcessFile(pid: string, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    // It ended while we looked.
    return '';
  }
}
