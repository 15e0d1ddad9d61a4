// Finds what an operator means among objects of a list: by id, name, or a prefix of an id that only one object has.

import { SwarmError } from '../core/errors.ts';
import type { Node, Service } from '../core/generated/objects.ts';
import type { Io } from './io.ts';

export function findNode(nodes: readonly Node[], reference: string): Node {
  const exact = nodes.find((node) => node.id === reference);
  if (exact !== undefined) return exact;
  const named = nodes.filter((node) => node.description.hostname === reference);
  const matches = named.length > 0 ? named : nodes.filter((node) => node.id.startsWith(reference));
  return onlyMatch('node', reference, matches);
}

export function findService(services: readonly Service[], reference: string): Service {
  const exact = services.find((service) => service.id === reference || service.spec.name === reference);
  if (exact !== undefined) return exact;
  return onlyMatch(
    'service',
    reference,
    services.filter((service) => service.id.startsWith(reference)),
  );
}

function onlyMatch<T>(kind: string, reference: string, matches: readonly T[]): T {
  const [match] = matches;
  if (match === undefined || reference === '')
    throw new SwarmError('not-found', `no such ${kind}: ${reference}`);
  if (matches.length > 1)
    throw new SwarmError('invalid-argument', `${kind} ${reference} is ambiguous: ${matches.length} match`);
  return match;
}

/** Names in the order people expect: "web2" before "web10". Intl's collator would take ten milliseconds to load. */
export function compareNames(a: string, b: string): number {
  const partsOf = (name: string) => name.match(/\d+|\D+/g) ?? [];
  const others = partsOf(b);
  for (const [index, part] of partsOf(a).entries()) {
    const other = others[index];
    if (other === undefined) return 1;
    const difference = Number(part) - Number(other);
    if (!Number.isNaN(difference) && difference !== 0) return difference;
    if (part !== other) return part < other ? -1 : 1;
  }
  return a.length - b.length;
}

/** Runs `act` for each and goes on after failures; returns all of them. */
export async function forEachName(
  names: readonly string[],
  act: (name: string) => Promise<void>,
): Promise<SwarmError[]> {
  const failures: SwarmError[] = [];
  for (const name of names) {
    try {
      await act(name);
    } catch (error) {
      if (!(error instanceof SwarmError) || error.code === 'unavailable') throw error;
      failures.push(error);
    }
  }
  return failures;
}

/** What `forEachName` has collected, for the operator's stderr. Returns the exit status. */
export function reportFailures(failures: readonly SwarmError[], io: Pick<Io, 'err'>): number {
  for (const { message, hint } of failures)
    io.err(`Error: ${message}\n${hint === undefined ? '' : `${hint}\n`}`);
  return failures.length > 0 ? 1 : 0;
}
