// What makes a secret or config acceptable, and the references of services to them. Every refusal names the field and
// says what would be right. Whether what is referred to exists, only the managers know.

import { invalidField, messageOf } from './errors.ts';
import type { ContainerSpec, FileReference, PayloadSpec } from './generated/objects.ts';
import { parseSignal } from './signals.ts';
import { checkPayloadTemplate } from './task-template.ts';
import { requireLabels, requireWhole } from './validate-fields.ts';

export type PayloadKind = 'secret' | 'config';

// Swarm's.
const NAME_PATTERN = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$/;
const NAME_LENGTH_MAX = 64;
/** Fewer than this; Swarm's. */
const KIBIBYTES_BELOW: Readonly<Record<PayloadKind, number>> = { secret: 500, config: 1000 };
const MODE_MAX = 0o7777;
/** The kernel's name for nobody is not one to give. */
const ID_MAX = 2 ** 32 - 2;
/** Where relative targets are. */
const DIRECTORIES: Readonly<Record<PayloadKind, string>> = { secret: '/run/secrets/', config: '/' };

/** Throws `invalid-argument` on the first field that is wrong. */
export function validatePayloadSpec(spec: PayloadSpec): void {
  if (spec.name.length > NAME_LENGTH_MAX || !NAME_PATTERN.test(spec.name))
    throw invalidField(
      'name',
      `"${spec.name}" must have 1 to ${NAME_LENGTH_MAX} letters and digits, with "-", "_" and "." inside`,
    );
  requireLabels('label', spec.labels);
  if (spec.templateDriver !== '' && spec.templateDriver !== 'golang')
    throw invalidField('template-driver', `"${spec.templateDriver}" must be "golang"`);
}

/** Throws `invalid-argument`; no part of the bytes is in the message. */
export function validatePayloadData(kind: PayloadKind, spec: PayloadSpec, data: Uint8Array): void {
  const below = KIBIBYTES_BELOW[kind] * 1024;
  if (data.length === 0 || data.length >= below)
    throw invalidField(
      'data',
      `a ${kind} must have at least 1 and less than ${below} bytes, it has ${data.length}`,
    );
  if (spec.templateDriver !== '') checkPayloadTemplate(data);
}

/** Where the file is in the container. */
export function targetOf(kind: PayloadKind, { target }: FileReference): string {
  return target.startsWith('/') ? target : `${DIRECTORIES[kind]}${target}`;
}

/** Throws `invalid-argument` on the first reference that is wrong. */
export function validateFileReferences({ secrets, configs, mounts }: ContainerSpec): void {
  const targets = new Map(mounts.map(({ target }) => [target, 'a mount']));
  for (const [kind, references] of [
    ['secret', secrets],
    ['config', configs],
  ] as const)
    for (const reference of references) {
      validateReference(kind, reference);
      const target = targetOf(kind, reference);
      const other = targets.get(target);
      if (other !== undefined)
        throw invalidField(kind, `target "${target}" is that of ${other} as well: give another one`);
      targets.set(target, `${kind} ${reference.sourceName || reference.sourceId}`);
    }
}

function validateReference(kind: PayloadKind, reference: FileReference): void {
  const { sourceId, target, version, uid, gid, mode, signal } = reference;
  if (sourceId === '') throw invalidField(kind, 'source must not be empty: name one');
  const path = targetOf(kind, reference);
  const parts = path.slice(1).split('/');
  if (target === '' || path.includes('\0') || parts.some((part) => ['', '.', '..'].includes(part)))
    throw invalidField(kind, `target "${target}" must be the path of a file, without ".", ".." and "//"`);
  requireWhole(`${kind}: version`, version);
  requireWhole(`${kind}: mode`, mode);
  if (mode > MODE_MAX) throw invalidField(kind, `mode ${mode.toString(8)} must be from 0 to 7777`);
  for (const [name, id] of [
    ['uid', uid],
    ['gid', gid],
  ] as const)
    if (!Number.isSafeInteger(id) || id < 0 || id > ID_MAX)
      throw invalidField(kind, `${name} ${id} must be a number from 0 to ${ID_MAX}`);
  if (signal === '') return;
  try {
    parseSignal(signal, 'signal');
  } catch (error) {
    throw invalidField(kind, messageOf(error));
  }
  if (version !== 0)
    throw invalidField(kind, `signal ${signal} tells of new versions: version=${version} never gets one`);
}
