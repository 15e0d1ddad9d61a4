// Resources that a node is told to have and services reserve by number: GPUs, licences, whatever. Some are as good as each
// other ("SSD=3"), some have names of which each task gets its own ("GPU=card0", "GPU=card1").

import { invalidField } from './errors.ts';
import type { GenericResource } from './generated/objects.ts';

const RESOURCE = /^(?<kind>[a-zA-Z0-9][a-zA-Z0-9._-]*)=(?<value>[^\s,=]+)$/;

/** Of a service: "GPU=2". Throws `invalid-argument` that names the flag. */
export function parseGenericRequest(text: string): GenericResource {
  const { kind, value } = RESOURCE.exec(text)?.groups ?? {};
  const count = Number(value);
  if (kind === undefined || !Number.isSafeInteger(count) || count < 1)
    throw invalidField('generic-resource', `"${text}" must be KIND=COUNT, such as GPU=2`);
  return { kind, count, names: [] };
}

/** Of a node: "SSD=3", or "GPU=card0" once for each name. Throws `invalid-argument` that names the option. */
export function parseGenericResources(texts: readonly string[]): GenericResource[] {
  const option = 'node-generic-resource';
  const found = new Map<string, GenericResource>();
  for (const text of texts) {
    const { kind, value } = RESOURCE.exec(text)?.groups ?? {};
    if (kind === undefined || value === undefined)
      throw invalidField(option, `"${text}" must be KIND=COUNT or KIND=NAME`);
    const isCount = /^\d+$/.test(value);
    const before = found.get(kind);
    if (before !== undefined && (isCount || before.names.length === 0 || before.names.includes(value)))
      throw invalidField(option, `"${text}": ${kind} is there already`);
    const names = isCount ? [] : [...(before?.names ?? []), value];
    found.set(kind, { kind, names, count: isCount ? Number(value) : names.length });
  }
  return [...found.values()];
}

/** "GPU=2". */
export function formatGenericRequest({ kind, count }: GenericResource): string {
  return `${kind}=${count}`;
}

/** For the environment of a task's container, named as Docker does. */
export function genericResourceEnv(resources: readonly GenericResource[]): string[] {
  return resources.map(
    ({ kind, count, names }) =>
      `DOCKER_RESOURCE_${kind.toUpperCase()}=${names.length > 0 ? names.join(',') : count}`,
  );
}
