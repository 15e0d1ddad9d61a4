// Which addresses a node-local network uses, so that it hides nothing that the host reaches.

import { createHash } from 'node:crypto';
import { SwarmError } from '../../core/errors.ts';
import { formatPrefix, type Prefix, parsePrefix, prefixesOverlap, prefixSize } from './ipv4.ts';

/** Private ranges that neither Docker nor common home and cloud networks start with, in order of preference. */
export const defaultSubnets: readonly Prefix[] = [
  '10.186.0.0/16',
  '10.187.0.0/16',
  '10.213.0.0/16',
  '172.29.0.0/16',
  '192.168.224.0/20',
].map(parsePrefix);

/** For the links between the host and its networks; leaves out 169.254.169.254, where clouds serve metadata. */
const LINK_RANGE = parsePrefix('169.254.64.0/18');
const LINK_PREFIX_LENGTH = 31;
const LINK_SIZE = prefixSize(LINK_PREFIX_LENGTH);

/** The first candidate that overlaps nothing in use. */
export function planSubnet(candidates: readonly Prefix[], used: readonly Prefix[]): Prefix {
  const subnet = candidates.find((candidate) => !used.some((prefix) => prefixesOverlap(candidate, prefix)));
  if (subnet !== undefined) return subnet;
  throw new SwarmError(
    'failed-precondition',
    `this node already routes all of ${candidates.map(formatPrefix).join(', ')}`,
    { hint: 'Name a free subnet for the node-local network.' },
  );
}

/** The /31 of an engine's uplink: starts at a place that depends on the engine, so that engines seldom meet. */
export function planLink(engineId: string, used: readonly Prefix[]): Prefix {
  const slots = prefixSize(LINK_RANGE.length) / LINK_SIZE;
  const start = createHash('sha256').update(engineId).digest().readUInt32BE() % slots;
  for (let step = 0; step < slots; step++) {
    const base = LINK_RANGE.base + ((start + step) % slots) * LINK_SIZE;
    const link = { base, length: LINK_PREFIX_LENGTH };
    if (!used.some((prefix) => prefixesOverlap(link, prefix))) return link;
  }
  throw new SwarmError('failed-precondition', `${formatPrefix(LINK_RANGE)} is in use on this node`);
}
