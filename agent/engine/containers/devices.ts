// Devices of this machine for a container: their nodes, and the rules that let it open them.

import { type BigIntStats, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { isCdiName } from '../../../core/cdi-name.ts';
import { SwarmError } from '../../../core/errors.ts';
import type { Device } from '../../../core/generated/objects.ts';

export interface DeviceRule {
  readonly allow: boolean;
  readonly type?: string;
  readonly major?: number;
  readonly minor?: number;
  readonly access: string;
}

export interface HostDevice {
  /** Its path on this machine. */
  readonly source: string;
  readonly node: {
    readonly path: string;
    readonly type: 'b' | 'c';
    readonly major: number;
    readonly minor: number;
    readonly fileMode: number;
    readonly uid: number;
    readonly gid: number;
  };
  readonly rule: DeviceRule;
}

// A container has these of its own.
const OWN_OF_CONTAINER = new Set(['pts', 'shm', 'fd', 'mqueue', 'console', '.lxc', '.lxd-mounts', '.udev']);
const ACCESS_BITS = 0o777n;

/** Those of a list. A directory stands for all devices in it. Throws `failed-precondition` for what is none. */
export function findDevices(devices: readonly Device[], hostname: string): HostDevice[] {
  const own = devices.filter(({ pathOnHost }) => !isCdiName(pathOnHost));
  return own.flatMap(({ pathOnHost, pathInContainer, permissions }) => {
    const stat = statSync(pathOnHost, { throwIfNoEntry: false, bigint: true });
    const missing = (what: string) =>
      new SwarmError('failed-precondition', `device: ${pathOnHost} of node ${hostname} ${what}`);
    if (stat === undefined) throw missing('does not exist');
    const found = stat.isDirectory()
      ? devicesBelow(pathOnHost, pathInContainer, permissions)
      : [deviceAt(stat, { source: pathOnHost, place: pathInContainer, access: permissions })].filter(
          (device) => device !== undefined,
        );
    if (found.length === 0) throw missing('is not a device');
    return found;
  });
}

/** All of the machine, for a privileged container. */
export function allDevices(): HostDevice[] {
  return devicesBelow('/dev', '/dev', 'rwm');
}

function devicesBelow(directory: string, place: string, permissions: string): HostDevice[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (OWN_OF_CONTAINER.has(entry.name)) return [];
    const [file, target] = [path.join(directory, entry.name), path.join(place, entry.name)];
    if (entry.isDirectory()) return devicesBelow(file, target, permissions);
    if (!entry.isCharacterDevice() && !entry.isBlockDevice()) return [];
    const stat = statSync(file, { throwIfNoEntry: false, bigint: true });
    return (stat && deviceAt(stat, { source: file, place: target, access: permissions })) ?? [];
  });
}

/** Undefined when the file is no device. */
export function deviceAt(
  stat: BigIntStats,
  { source, place, access }: { source: string; place: string; access: string },
): HostDevice | undefined {
  const type = stat.isBlockDevice() ? 'b' : stat.isCharacterDevice() ? 'c' : undefined;
  if (type === undefined) return undefined;
  // As in glibc's gnu_dev_major and gnu_dev_minor.
  const major = Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & ~0xfffn));
  const minor = Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & ~0xffn));
  const [uid, gid] = [Number(stat.uid), Number(stat.gid)];
  const fileMode = Number(stat.mode & ACCESS_BITS);
  return {
    source,
    node: { path: place, type, major, minor, fileMode, uid, gid },
    rule: { allow: true, type, major, minor, access },
  };
}
