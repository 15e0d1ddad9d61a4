// Paths inside volumes and images, held fast: each is opened without leaving its root, and mounted at a place of its own,
// so that whoever can write to the volume cannot exchange it for a link before the container is started.

import { closeSync, fstatSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import { check, libcFunctions, SystemCallError } from '../../linux/libc.ts';
import { openPath } from '../images/image-files.ts';

const MS_BIND = 0x1000;
const MS_REC = 0x4000;

/** Makes `subpath` of a directory appear at `place`, which is made. Throws `invalid-argument` when it is outside. */
export function pinSubpath(root: string, subpath: string, place: string): void {
  const fd = openInside(root, subpath);
  try {
    const stat = fstatSync(fd);
    mkdirSync(stat.isDirectory() ? place : path.dirname(place), { recursive: true, mode: 0o711 });
    if (!stat.isDirectory()) writeFileSync(place, '');
    const source = `/proc/self/fd/${fd}`;
    check(libcFunctions.mount(source, place, 'none', MS_BIND | MS_REC, null), `bind mount ${subpath}`);
  } finally {
    closeSync(fd);
  }
}

function openInside(root: string, subpath: string): number {
  try {
    return openPath(root, subpath);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    const isOutside = error.errnoName === 'EXDEV' || error.errnoName === 'ELOOP';
    const reason = isOutside ? 'leads out of it' : `cannot be opened: ${error.errnoName}`;
    throw new SwarmError('invalid-argument', `subpath ${JSON.stringify(subpath)} of the mount ${reason}`, {
      cause: error,
    });
  }
}
