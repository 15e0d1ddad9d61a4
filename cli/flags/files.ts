// `--secret` and `--config`: NAME, or source=NAME and more. Pure.

import { emptyFileReference, type FileReference } from '../../core/generated/objects.ts';
import { type PayloadKind, targetOf } from '../../core/validate-payload.ts';
import { parseCount } from './units.ts';
import { splitCsv, splitKeyValue } from './words.ts';

const MODE = 0o444;
const MODE_MAX = 0o7777;
const KEYS = 'source, target, uid, gid, mode, version, signal';

export const FILE_SYNTAX =
  'NAME, or source=NAME[,target=PATH][,uid=N][,gid=N][,mode=0444][,version=N][,signal=SIGNAL]';

type Draft = { -readonly [K in keyof FileReference]: FileReference[K] };

/** Without a target, a secret is below /run/secrets and a config below /, both by their name. */
export function parseFileReference(text: string): FileReference {
  const draft: Draft = { ...emptyFileReference, mode: MODE };
  const fields = splitCsv(text);
  if (fields.length === 1 && !text.includes('=')) draft.sourceId = text;
  else for (const field of fields) setField(draft, field);
  if (draft.sourceId === '') throw new Error('source is missing');
  draft.sourceName = draft.sourceId;
  draft.target ||= draft.sourceName;
  return draft;
}

function setField(draft: Draft, field: string): void {
  const { key, value } = splitKeyValue(field);
  if (value === undefined || value === '')
    throw new Error(`invalid field "${field}" must be a key=value pair`);
  switch (key.trim().toLowerCase()) {
    case 'source':
    case 'src':
      draft.sourceId = value;
      return;
    case 'target':
    case 'dst':
      draft.target = value;
      return;
    case 'uid':
      draft.uid = number(key, value);
      return;
    case 'gid':
      draft.gid = number(key, value);
      return;
    case 'mode':
      draft.mode = parseMode(value);
      return;
    case 'version':
      draft.version = number(key, value);
      if (draft.version === 0) throw new Error('version "0" must be from 1; leave it out for the newest');
      return;
    case 'signal':
      draft.signal = value;
      return;
    default:
      throw new Error(`unknown key "${key}"; known are ${KEYS}`);
  }
}

function number(key: string, value: string): number {
  try {
    return parseCount(value);
  } catch {
    throw new Error(`${key} "${value}" must be a whole number`);
  }
}

function parseMode(text: string): number {
  const mode = Number.parseInt(text.replace(/^0o/, ''), 8);
  if (!/^(0o)?[0-7]+$/.test(text) || mode > MODE_MAX)
    throw new Error(`mode "${text}" must be an octal mode such as 0444`);
  return mode;
}

/** `--secret-rm` takes away all that is of one name, `--secret-add` what has its target. */
export function mergeFiles(
  kind: PayloadKind,
  current: readonly FileReference[],
  removed: readonly string[],
  added: readonly FileReference[],
): FileReference[] {
  const targets = added.map((reference) => targetOf(kind, reference));
  const kept = current.filter(
    (reference) =>
      !removed.includes(reference.sourceName) &&
      !removed.includes(reference.sourceId) &&
      !targets.includes(targetOf(kind, reference)),
  );
  return [...kept, ...added];
}
