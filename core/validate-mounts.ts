// What makes the mounts of a container acceptable. Each refusal is `invalid-argument` and names the field.

import { invalidField } from './errors.ts';
import type { Mount } from './generated/objects.ts';
import { parseImageReference } from './image-reference.ts';
import { requireLabels, requireWhole } from './validate-fields.ts';

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}$/;
const VOLUME_OPTIONS: readonly string[] = ['type', 'device', 'o', 'size'];
const PROPAGATIONS: readonly string[] = ['', 'rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave'];
const RECURSIONS: readonly string[] = ['', 'enabled', 'disabled', 'writable', 'readonly'];

export function validateMounts(mounts: readonly Mount[]): void {
  const targets = new Set<string>();
  for (const mount of mounts) {
    const { target } = mount;
    if (!target.startsWith('/') || /^\/*$/.test(target))
      throw invalidField('mount', `target "${target}" must be an absolute path below /`);
    if (target.includes('\0') || mount.source.includes('\0'))
      throw invalidField('mount', 'source and target must not contain NUL characters');
    const place = target.replace(/\/+$/, '');
    if (targets.has(place)) throw invalidField('mount', `target "${target}" is used twice`);
    targets.add(place);
    requireWhole('mount: tmpfs-size', mount.tmpfsSizeBytes);
    validateSubpath(mount);
    validateSource(mount);
    validateOptionsOfType(mount);
  }
}

function validateSource({ type, source }: Mount): void {
  if (type === 'bind' && !source.startsWith('/'))
    throw invalidField('mount', `source "${source}" of a bind must be an absolute path`);
  if (type === 'tmpfs' && source !== '') throw invalidField('mount', 'a tmpfs has no source');
  if (type === 'volume' && source !== '') requireVolumeName('mount: source', source);
  if (type !== 'image') return;
  if (source === '') throw invalidField('mount', 'source of an image mount must name an image');
  parseImageReference(source);
}

/** A name of its own for a volume on a node. */
export function requireVolumeName(field: string, name: string): void {
  if (!VOLUME_NAME.test(name))
    throw invalidField(
      field,
      `"${name}" is not a valid volume name: two or more letters, digits, "_", "." and "-", a letter or digit first`,
    );
}

function validateSubpath({ type, subpath }: Mount): void {
  if (subpath === '') return;
  if (type !== 'volume' && type !== 'image')
    throw invalidField('mount', 'a subpath is of a volume or an image');
  if (subpath.startsWith('/') || subpath.split('/').includes('..'))
    throw invalidField('mount', `subpath "${subpath}" must be a relative path without ".."`);
}

function validateOptionsOfType(mount: Mount): void {
  const { type, bindRecursive, bindPropagation, readOnly, volumeDriver, volumeLabels } = mount;
  const refuse = (isGiven: boolean, what: string, kind: string) => {
    if (isGiven) throw invalidField('mount', `${what} goes with type=${kind} only`);
  };
  const hasBindOptions = bindPropagation !== '' || bindRecursive !== '' || mount.bindCreateSource;
  refuse(type !== 'bind' && hasBindOptions, 'a bind option', 'bind');
  const hasTmpfsOptions =
    mount.tmpfsSizeBytes !== 0 || mount.tmpfsMode !== 0 || mount.tmpfsOptions.length > 0;
  refuse(type !== 'tmpfs' && hasTmpfsOptions, 'a tmpfs option', 'tmpfs');
  const hasVolumeOptions =
    mount.volumeNoCopy || volumeDriver !== undefined || Object.keys(volumeLabels).length > 0;
  refuse(type !== 'volume' && hasVolumeOptions, 'a volume option', 'volume');
  if (!PROPAGATIONS.includes(bindPropagation))
    throw invalidField('mount', `bind-propagation "${bindPropagation}" must be rprivate, rshared or rslave`);
  if (!RECURSIONS.includes(bindRecursive))
    throw invalidField(
      'mount',
      `bind-recursive "${bindRecursive}" must be ${RECURSIONS.slice(1).join(', ')}`,
    );
  if ((bindRecursive === 'readonly' || bindRecursive === 'writable') && !readOnly)
    throw invalidField('mount', `bind-recursive=${bindRecursive} needs readonly`);
  if (bindRecursive === 'readonly' && bindPropagation !== '' && bindPropagation !== 'rprivate')
    throw invalidField('mount', 'bind-recursive=readonly needs bind-propagation=rprivate');
  for (const option of mount.tmpfsOptions)
    if (option === '' || /[,\0\s]/.test(option))
      throw invalidField('tmpfs', `option "${option}" must be a word such as noexec or uid=1000`);
  requireLabels('mount: volume-label', volumeLabels);
  if (volumeDriver !== undefined) validateVolumeDriver('mount: ', volumeDriver.name, volumeDriver.options);
}

/** `prefix` stands before the names of the fields in a refusal. */
export function validateVolumeDriver(
  prefix: string,
  name: string,
  options: Readonly<Record<string, string>>,
): void {
  if (name !== '' && name !== 'local')
    throw invalidField(`${prefix}volume-driver`, `"${name}" is not supported: must be "local"`);
  const unknown = Object.keys(options).find((key) => !VOLUME_OPTIONS.includes(key));
  if (unknown !== undefined)
    throw invalidField(
      `${prefix}volume-opt`,
      `invalid option "${unknown}": the driver local has type, device and o`,
    );
  if (options['size'] !== undefined)
    throw invalidField(`${prefix}volume-opt`, 'size is not supported: give a tmpfs its size in o=size=…');
  const isGiven = Object.keys(options).length > 0;
  if (isGiven && (options['device'] ?? '') === '')
    throw invalidField(`${prefix}volume-opt`, 'device is missing: type, device and o go together');
  if (isGiven && (options['type'] ?? '') === '' && !/(^|,)r?bind(,|$)/.test(options['o'] ?? ''))
    throw invalidField(`${prefix}volume-opt`, 'type is missing: such as nfs or tmpfs, or "none" with o=bind');
}
