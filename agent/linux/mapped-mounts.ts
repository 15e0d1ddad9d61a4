// Mounts that show the files of a place with other owners: whoever is 0 there is the first id of a user namespace here.
// Nothing on the disk changes.

import { closeSync, openSync } from 'node:fs';
import { check, libcFunctions } from './libc.ts';

const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_MOUNT_SETATTR = 442;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_IDMAP = 0x100000n;
const MS_PRIVATE = 1n << 18n;
/** struct mount_attr: what to set, what to clear, propagation, file descriptor of the user namespace. */
const ATTRIBUTES_BYTES = 32;

export interface MappedMount {
  readonly source: string;
  /** A file or directory, as the source is one. */
  readonly target: string;
  /** With what is mounted below. */
  readonly isTree: boolean;
}

/** Throws a SystemCallError with EINVAL when a file system there cannot be mapped. */
export function mountMapped({ source, target, isTree }: MappedMount, userNamespace: string): void {
  const recursive = isTree ? AT_RECURSIVE : 0;
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive;
  const clone = check(
    Number(libcFunctions.openTree(SYS_OPEN_TREE, AT_FDCWD, source, flags)),
    `open the mount ${source}`,
  );
  try {
    const namespace = openSync(userNamespace, 'r');
    try {
      const attributes = Buffer.alloc(ATTRIBUTES_BYTES);
      attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0);
      attributes.writeBigUInt64LE(MS_PRIVATE, 16);
      attributes.writeBigUInt64LE(BigInt(namespace), 24);
      const how = AT_EMPTY_PATH | recursive;
      check(
        Number(libcFunctions.mountSetattr(SYS_MOUNT_SETATTR, clone, '', how, attributes, ATTRIBUTES_BYTES)),
        `map the owners of ${source}`,
      );
    } finally {
      closeSync(namespace);
    }
    check(
      Number(libcFunctions.moveMount(SYS_MOVE_MOUNT, clone, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)),
      `mount ${target}`,
    );
  } finally {
    closeSync(clone);
  }
}
