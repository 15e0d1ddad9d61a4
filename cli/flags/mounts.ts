// `--mount type=bind,source=/data,target=/data,readonly`. Pure but for relative sources, which a caller resolves.

import { emptyMount, type Mount, type MountType } from '../../core/generated/objects.ts';
import { oneOf, parseBoolean, parseBytes } from './units.ts';
import { splitCsv, splitKeyValue } from './words.ts';

const parseType = oneOf('volume', 'bind', 'tmpfs');
const parsePropagation = oneOf('rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave');
const TMPFS_MODE_MAX = 0o7777;
// Keys that Docker knows and this version refuses.
const UNSUPPORTED_KEYS = new Set([
  'consistency',
  'bind-nonrecursive',
  'bind-recursive',
  'bind-create-src',
  'volume-nocopy',
  'volume-subpath',
  'volume-label',
  'volume-driver',
  'volume-opt',
  'image-subpath',
]);

type Draft = { -readonly [K in keyof Mount]: Mount[K] };

export function parseMount(text: string): Mount {
  const draft: Draft = { ...emptyMount };
  for (const field of splitCsv(text)) {
    const { key, value } = splitKeyValue(field);
    setField(draft, key.trim().toLowerCase(), value, field);
  }
  if (draft.target === '') throw new Error('target is missing');
  requireKeysOfType(draft);
  return draft;
}

function setField(draft: Draft, key: string, value: string | undefined, field: string): void {
  if (key === 'readonly' || key === 'ro') {
    draft.readOnly = value === undefined ? true : check(key, value, parseBoolean);
    return;
  }
  if (UNSUPPORTED_KEYS.has(key)) throw new Error(`${key} is not supported yet`);
  if (value === undefined) throw new Error(`invalid field "${field}" must be a key=value pair`);
  switch (key) {
    case 'type':
      if (['npipe', 'cluster', 'image'].includes(value))
        throw new Error(`type "${value}" is not supported yet`);
      draft.type = check(key, value.toLowerCase(), parseType) as MountType;
      return;
    case 'source':
    case 'src':
      draft.source = value;
      return;
    case 'target':
    case 'dst':
    case 'destination':
      draft.target = value;
      return;
    case 'bind-propagation':
      draft.bindPropagation = check(key, value, parsePropagation);
      return;
    case 'tmpfs-size':
      draft.tmpfsSizeBytes = check(key, value, parseBytes);
      return;
    case 'tmpfs-mode':
      draft.tmpfsMode = check(key, value, parseMode);
      return;
    default:
      throw new Error(
        `unknown key "${key}"; known are type, source, target, readonly, bind-propagation, tmpfs-size, tmpfs-mode`,
      );
  }
}

function requireKeysOfType({ type, source, bindPropagation, tmpfsSizeBytes, tmpfsMode }: Draft): void {
  if (type === 'bind' && source === '') throw new Error('source is missing: a bind needs one');
  if (type === 'tmpfs' && source !== '') throw new Error('source: a tmpfs has none');
  if (type !== 'bind' && bindPropagation !== '') throw new Error('bind-propagation goes with type=bind only');
  if (type !== 'tmpfs' && (tmpfsSizeBytes !== 0 || tmpfsMode !== 0))
    throw new Error('tmpfs-size and tmpfs-mode go with type=tmpfs only');
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
