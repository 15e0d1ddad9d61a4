// `--mount type=bind,source=/data,target=/data,readonly`. Pure but for relative sources, which a caller resolves.

import { emptyMount, type Mount, type MountType, type VolumeDriver } from '../../core/generated/objects.ts';
import { oneOf, parseBoolean, parseBytes } from './units.ts';
import { parseLabel, splitCsv, splitKeyValue } from './words.ts';

const parseType = oneOf('volume', 'bind', 'tmpfs', 'image');
const parsePropagation = oneOf('rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave');
const parseRecursive = oneOf('enabled', 'disabled', 'writable', 'readonly');
const parseConsistency = oneOf('consistent', 'cached', 'delegated', 'default');
const TMPFS_MODE_MAX = 0o7777;
const KEYS = [
  ...['type', 'source', 'target', 'readonly', 'consistency'],
  ...['bind-propagation', 'bind-recursive', 'bind-nonrecursive', 'bind-create-src'],
  ...['volume-nocopy', 'volume-subpath', 'volume-label', 'volume-driver', 'volume-opt', 'image-subpath'],
  ...['tmpfs-size', 'tmpfs-mode', 'tmpfs-opt'],
];
/** Keys that may stand without a value. */
const SWITCHES: readonly string[] = [
  'readonly',
  'ro',
  'volume-nocopy',
  'bind-nonrecursive',
  'bind-create-src',
];

type Draft = { -readonly [K in keyof Mount]: Mount[K] };

export function parseMount(text: string): Mount {
  let draft: Draft = { ...emptyMount };
  const given = new Set<string>();
  for (const field of splitCsv(text)) {
    const { key: word, value } = splitKeyValue(field);
    const key = word.trim().toLowerCase();
    if (value === undefined && !SWITCHES.includes(key))
      throw new Error(
        KEYS.includes(key) ? `invalid field "${field}" must be a key=value pair` : unknownKey(key),
      );
    given.add(key.split('-')[0] ?? '');
    draft = { ...draft, ...readField(draft, key, value ?? 'true') };
  }
  if (draft.target === '') throw new Error('target is missing');
  requireKeysOfType(draft, given);
  return draft;
}

function unknownKey(key: string): string {
  return `unknown key "${key}"; known are ${KEYS.join(', ')}`;
}

function readField(draft: Draft, key: string, value: string): Partial<Draft> {
  switch (key) {
    case 'readonly':
    case 'ro':
      return { readOnly: check(key, value, parseBoolean) };
    case 'type':
      if (value === 'npipe' || value === 'cluster') throw new Error(`type "${value}" is not supported`);
      return { type: check(key, value.toLowerCase(), parseType) as MountType };
    case 'source':
    case 'src':
      return { source: value };
    case 'target':
    case 'dst':
    case 'destination':
      return { target: value };
    case 'consistency':
      // Of Docker's desktop; without effect on Linux.
      check(key, value, parseConsistency);
      return {};
    default:
      return readOptionOfType(draft, key, value);
  }
}

function readOptionOfType(draft: Draft, key: string, value: string): Partial<Draft> {
  switch (key) {
    case 'bind-propagation':
      return { bindPropagation: check(key, value, parsePropagation) };
    case 'bind-recursive':
      return { bindRecursive: check(key, value, parseRecursive) };
    case 'bind-nonrecursive':
      return { bindRecursive: check(key, value, parseBoolean) ? 'disabled' : draft.bindRecursive };
    case 'bind-create-src':
      return { bindCreateSource: check(key, value, parseBoolean) };
    case 'volume-nocopy':
      return { volumeNoCopy: check(key, value, parseBoolean) };
    case 'volume-subpath':
    case 'image-subpath':
      return { subpath: value };
    case 'volume-label':
      return {
        volumeLabels: { ...draft.volumeLabels, ...Object.fromEntries([check(key, value, parseLabel)]) },
      };
    case 'volume-driver':
      return { volumeDriver: { ...driverOf(draft), name: value } };
    case 'volume-opt':
      return { volumeDriver: withOption(driverOf(draft), value) };
    case 'tmpfs-size':
      return { tmpfsSizeBytes: check(key, value, parseBytes) };
    case 'tmpfs-mode':
      return { tmpfsMode: check(key, value, parseMode) };
    case 'tmpfs-opt':
      return parseTmpfsOption(draft, value);
    default:
      throw new Error(unknownKey(key));
  }
}

function driverOf({ volumeDriver }: Draft): VolumeDriver {
  return volumeDriver ?? { name: 'local', options: {} };
}

function withOption(driver: VolumeDriver, text: string): VolumeDriver {
  const { key, value } = splitKeyValue(text);
  if (key === '' || value === undefined) throw new Error(`volume-opt "${text}" must be NAME=VALUE`);
  return { ...driver, options: { ...driver.options, [key]: value } };
}

/** One of the options of a tmpfs in mount(8)'s words: "size=64m", "mode=1777", "ro", "exec". */
export function parseTmpfsOption<T extends Mount>(draft: T, word: string): T {
  const { key, value } = splitKeyValue(word);
  if (key === 'size' && value !== undefined)
    return { ...draft, tmpfsSizeBytes: check(key, value, parseBytes) };
  if (key === 'mode' && value !== undefined) return { ...draft, tmpfsMode: check(key, value, parseMode) };
  if (word === 'ro' || word === 'rw') return { ...draft, readOnly: word === 'ro' };
  return { ...draft, tmpfsOptions: [...draft.tmpfsOptions, word] };
}

function requireKeysOfType({ type, source, subpath }: Draft, given: ReadonlySet<string>): void {
  if (type === 'bind' && source === '') throw new Error('source is missing: a bind needs one');
  if (type === 'image' && source === '') throw new Error('source is missing: an image mount names its image');
  if (type === 'tmpfs' && source !== '') throw new Error('source: a tmpfs has none');
  for (const other of ['bind', 'volume', 'tmpfs', 'image'])
    if (other !== type && given.has(other)) throw new Error(`${other}-… goes with type=${other} only`);
  if (subpath.startsWith('/') || subpath.split('/').includes('..'))
    throw new Error(`${type}-subpath "${subpath}" must be a relative path without ".."`);
}

function parseMode(text: string): number {
  const mode = Number.parseInt(text, 8);
  if (!/^[0-7]+$/.test(text) || mode > TMPFS_MODE_MAX) throw new Error('must be an octal mode such as 1777');
  return mode;
}

function check<T>(key: string, value: string, parse: (text: string) => T): T {
  try {
    return parse(value);
  } catch (error) {
    throw new Error(`${key} "${value}" ${(error as Error).message}`);
  }
}
