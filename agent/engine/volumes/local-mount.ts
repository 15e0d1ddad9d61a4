// Mounts what a volume of the driver `local` stands for: the device, type and options of mount(8), by the system call.

import { lookup } from 'node:dns/promises';
import { SwarmError } from '../../../core/errors.ts';
import { check, libcFunctions, SystemCallError } from '../../linux/libc.ts';

const MS_REMOUNT = 0x20;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
/** Words that are flags of the system call; "!" takes the flag away. */
const FLAGS: Readonly<Record<string, number>> = {
  bind: MS_BIND,
  rbind: MS_BIND | MS_REC,
  ro: 0x1,
  nosuid: 0x2,
  nodev: 0x4,
  noexec: 0x8,
  sync: 0x10,
  dirsync: 0x80,
  nosymfollow: 0x100,
  noatime: 0x400,
  nodiratime: 0x800,
  relatime: 1 << 21,
  strictatime: 1 << 24,
  lazytime: 1 << 25,
  private: 1 << 18,
  shared: 1 << 20,
  slave: 1 << 19,
};
const OPPOSITES: Readonly<Record<string, string>> = {
  rw: 'ro',
  suid: 'nosuid',
  dev: 'nodev',
  exec: 'noexec',
  async: 'sync',
  atime: 'noatime',
  diratime: 'nodiratime',
};
const PROPAGATION = (1 << 18) | (1 << 19) | (1 << 20);
const NETWORK_TYPES: readonly string[] = ['nfs', 'nfs4', 'cifs'];

export interface MountWords {
  readonly flags: number;
  /** For the file system. */
  readonly data: string;
}

/** What the comma-separated options of mount(8) are for the system call. */
export function parseMountWords(text: string): MountWords {
  let flags = 0;
  const data: string[] = [];
  for (const word of text.split(',').filter((each) => each !== '' && each !== 'defaults')) {
    const opposite = OPPOSITES[word];
    if (opposite !== undefined) flags &= ~(FLAGS[opposite] ?? 0);
    else if (FLAGS[word] !== undefined) flags |= FLAGS[word];
    else data.push(word);
  }
  return { flags, data: data.join(',') };
}

/** Throws `failed-precondition` that names the volume and the reason. */
export async function mountLocal(
  volume: string,
  options: Readonly<Record<string, string>>,
  place: string,
): Promise<void> {
  const { type = '', device = '', o = '' } = options;
  const words = NETWORK_TYPES.includes(type) ? await withAddress(volume, o) : o;
  const { flags, data } = parseMountWords(words);
  const isBind = (flags & MS_BIND) !== 0;
  try {
    const kind = flags & (MS_BIND | MS_REC);
    const first = isBind ? kind : flags & ~PROPAGATION;
    check(libcFunctions.mount(device, place, isBind ? 'none' : type, first, data || null), `mount ${device}`);
    const rest = flags & ~(kind | PROPAGATION);
    // The kernel ignores other flags when it makes a bind mount.
    if (isBind && rest !== 0)
      check(
        libcFunctions.mount('none', place, 'none', rest | MS_BIND | MS_REMOUNT, null),
        `remount ${place}`,
      );
    const propagation = flags & PROPAGATION;
    if (propagation !== 0)
      check(libcFunctions.mount('none', place, 'none', propagation, null), `propagation of ${place}`);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    const what = `type "${type}", device "${device}", o "${o}"`;
    throw new SwarmError(
      'failed-precondition',
      `volume ${volume}: cannot mount ${what}: ${error.errnoName}`,
      {
        cause: error,
      },
    );
  }
}

/** The kernel takes no host names. */
async function withAddress(volume: string, words: string): Promise<string> {
  const parts = words.split(',');
  const index = parts.findIndex((part) => part.startsWith('addr='));
  if (index < 0) return words;
  const name = (parts[index] ?? '').slice('addr='.length);
  try {
    parts[index] = `addr=${(await lookup(name)).address}`;
  } catch (error) {
    throw new SwarmError('failed-precondition', `volume ${volume}: addr "${name}" cannot be resolved`, {
      cause: error,
    });
  }
  return parts.join(',');
}
