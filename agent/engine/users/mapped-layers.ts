// The layers of an image as a container with users of its own is to see them: each is mounted once more, with the container's
// owners. Nothing is copied or changed on the disk.

import { chownSync, mkdirSync, rmdirSync, statSync } from 'node:fs';
import path from 'node:path';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import { libcFunctions } from '../../linux/libc.ts';
import { mountMapped } from '../../linux/mapped-mounts.ts';
import { IDS_PER_NAMESPACE } from '../../linux/user-namespace.ts';
import type { UserMapping } from '../engine.ts';

const MNT_DETACH = 2;
const LOWER = 'lowerdir=';
const UPPER = 'upperdir=';

/** Runs the action with mounts that stand for a snapshot's. What is mounted by then keeps its layers. */
export async function withMappedLayers<T>(
  mounts: readonly SnapshotMount[],
  { directory, users }: { directory: string; users: UserMapping },
  action: (mounts: readonly SnapshotMount[]) => Promise<T>,
): Promise<T> {
  const places: string[] = [];
  const show = (source: string): string => {
    const place = path.join(directory, `layer-${places.length}`);
    mkdirSync(place, { recursive: true, mode: 0o711 });
    places.push(place);
    mountMapped({ source, target: place, isTree: false }, users.userNamespace);
    return place;
  };
  try {
    return await action(mounts.map((mount) => mappedMount(mount, users, show)));
  } finally {
    for (const place of places) {
      // A killed process may have left another one below. What cannot be unmounted cannot be removed either.
      while (libcFunctions.umount2(place, MNT_DETACH) === 0);
      rmdirSync(place);
    }
  }
}

function mappedMount(
  mount: SnapshotMount,
  users: UserMapping,
  show: (source: string) => string,
): SnapshotMount {
  if (mount.type === 'bind') {
    if (mount.options.includes('ro')) return { ...mount, source: show(mount.source) };
    giveRoot(mount.source, users);
    return mount;
  }
  const options = mount.options.map((option) => {
    if (option.startsWith(UPPER)) giveRoot(option.slice(UPPER.length), users);
    if (!option.startsWith(LOWER)) return option;
    return `${LOWER}${option.slice(LOWER.length).split(':').map(show).join(':')}`;
  });
  return { ...mount, options };
}

/** What the container writes goes there as the machine's ids; containerd has made the directory with the image's. */
function giveRoot(directory: string, { firstId }: UserMapping): void {
  const { uid, gid } = statSync(directory);
  if (uid < IDS_PER_NAMESPACE) chownSync(directory, firstId + uid, firstId + gid);
}
