// What differs between two specs of a service, in short: "image: nginx:1.26 → nginx:1.27". Pure.

import type { ServiceSpec } from '../../core/generated/objects.ts';

const LENGTH_MAX = 60;
const CHANGES_MAX = 12;

/** One text for each field, named as flags name it where that is possible. */
export function specChanges(before: ServiceSpec, after: ServiceSpec): string[] {
  const changes = compare('', before, after);
  if (changes.length <= CHANGES_MAX) return changes;
  return [...changes.slice(0, CHANGES_MAX), `and ${changes.length - CHANGES_MAX} more`];
}

function compare(path: string, before: unknown, after: unknown): string[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  if (Array.isArray(before) && Array.isArray(after)) return [compareLists(path, before, after)];
  if (!isPlain(before) || !isPlain(after)) return [`${fieldName(path)}: ${show(before)} → ${show(after)}`];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  return keys.flatMap((key) => compare(path === '' ? key : `${path}.${key}`, before[key], after[key]));
}

function compareLists(path: string, before: readonly unknown[], after: readonly unknown[]): string {
  const [old, now] = [before.map(show), after.map(show)];
  const added = now.filter((item) => !old.includes(item)).map((item) => `+${item}`);
  const gone = old.filter((item) => !now.includes(item)).map((item) => `-${item}`);
  const parts = [...gone, ...added];
  return `${fieldName(path)}: ${shorten(parts.length === 0 ? 'another order' : parts.join(' '))}`;
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const PREFIXES =
  /^(task\.container\.|task\.placement\.|task\.resources\.|task\.|mode\.replicated\.|mode\.|endpoint\.)/;

/** "task.resources.limits.memoryBytes" is "limits memory-bytes". */
function fieldName(path: string): string {
  return path
    .replace(PREFIXES, '')
    .replaceAll('.', ' ')
    .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function show(value: unknown): string {
  if (value === undefined || value === '') return 'none';
  return shorten(typeof value === 'string' ? value : JSON.stringify(value));
}

function shorten(text: string): string {
  return text.length > LENGTH_MAX ? `${text.slice(0, LENGTH_MAX - 1)}…` : text;
}
