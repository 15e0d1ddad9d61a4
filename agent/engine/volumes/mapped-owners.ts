// Volumes and directories of the machine for a container with users of its own: whoever owns a file outside owns it inside,
// so that containers with and without such users share them.

import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import type { Mount } from '../../../core/generated/objects.ts';
import { SystemCallError } from '../../linux/libc.ts';
import { mountMapped } from '../../linux/mapped-mounts.ts';
import type { UserMapping } from '../engine.ts';

const PROPAGATIONS: readonly string[] = ['', 'private', 'rprivate'];
const HINT = 'With --userns host the container has the users of the node.';

/** The mount with its source at `place`. Throws `failed-precondition` when its file system knows only its own owners. */
export function mapOwners(mount: Mount, place: string, users: UserMapping): Mount {
  const { type, source, target, bindPropagation, bindRecursive } = mount;
  // A tmpfs is made inside, an image is made of layers that are mapped.
  if (type === 'tmpfs' || type === 'image') return mount;
  if (!PROPAGATIONS.includes(bindPropagation))
    throw new SwarmError(
      'failed-precondition',
      `mount ${target}: bind-propagation=${bindPropagation} does not go with users of the container's own (userns)`,
      { hint: HINT },
    );
  const isDirectory = statSync(source).isDirectory();
  mkdirSync(isDirectory ? place : path.dirname(place), { recursive: true, mode: 0o711 });
  if (!isDirectory) writeFileSync(place, '');
  try {
    mountMapped({ source, target: place, isTree: bindRecursive !== 'disabled' }, users.userNamespace);
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errnoName !== 'EINVAL') throw error;
    throw new SwarmError(
      'failed-precondition',
      `mount ${target}: ${source} is on, or has in it, a file system that cannot be shared with a container's own users (userns)`,
      { hint: HINT, cause: error },
    );
  }
  return { ...mount, source: place };
}
