// Checks that several kinds of spec share. Each throws `invalid-argument` that names the field.

import { invalidField } from './errors.ts';

const NAME_PATTERN = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$/;
// A name becomes a DNS label.
const NAME_LENGTH_MAX = 63;

/** Of something that containers look up, or that an operator types. */
export function requireName(field: string, name: string): void {
  if (name === '') throw invalidField(field, 'must not be empty');
  if (name.length > NAME_LENGTH_MAX)
    throw invalidField(field, `must be ${NAME_LENGTH_MAX} characters or fewer, it has ${name.length}`);
  if (!NAME_PATTERN.test(name))
    throw invalidField(field, `"${name}" is not valid as a DNS name: letters, digits, "-" and "_" inside`);
}

export function requireLabels(field: string, labels: Readonly<Record<string, string>>): void {
  for (const key of Object.keys(labels))
    if (key.trim() === '') throw invalidField(field, 'a label needs a name: NAME=VALUE');
}

export function requireWhole(field: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0)
    throw invalidField(field, `${value} must be a whole number, zero or more`);
}
