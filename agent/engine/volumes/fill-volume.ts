// The first contents of a volume: what the image has at the place where it is mounted, with owners and modes. Images
// that run as another user count on it.

import { execFile } from 'node:child_process';
import { chmodSync, chownSync, closeSync, fstatSync, mkdirSync } from 'node:fs';
import { promisify } from 'node:util';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import { openInImage, withImageRoot } from '../images/image-files.ts';

const run = promisify(execFile);

export interface VolumeToFill {
  readonly directory: string;
  /** Where it is mounted in the image. */
  readonly target: string;
}

/** Copies the image's files into empty volumes. */
export async function fillVolumes(
  mounts: readonly SnapshotMount[],
  scratchDirectory: string,
  volumes: readonly VolumeToFill[],
): Promise<void> {
  await withImageRoot(mounts, scratchDirectory, async (root) => {
    for (const volume of volumes) await fillVolume(root, volume);
  });
}

async function fillVolume(root: number, { directory, target }: VolumeToFill): Promise<void> {
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const source = openInImage(root, target);
  if (source === undefined) return;
  try {
    const { mode, uid, gid } = fstatSync(source);
    chownSync(directory, uid, gid);
    chmodSync(directory, mode & 0o7777);
    // The descriptor stands for the directory inside the image, whatever links led there.
    await run('cp', ['-a', '--', `/proc/${process.pid}/fd/${source}/.`, directory]);
  } finally {
    closeSync(source);
  }
}
