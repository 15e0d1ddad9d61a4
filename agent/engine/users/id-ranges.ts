// Which ids of the machine containers with users of their own may have. Pure.

import { SwarmError } from '../../../core/errors.ts';
import { IDS_PER_NAMESPACE } from '../../linux/user-namespace.ts';

/**
 * Above what others take by default: shadow's subordinate ids (to 600,100,000), systemd's containers (to 1,879,048,191),
 * sssd's domains (to 2,000,200,000). A whole number of ranges.
 */
export const POOL_FIRST_ID = 30_521 * IDS_PER_NAMESPACE;
/** systemd's foreign ids begin here; ids from 2^31 on are negative to some programs. */
export const POOL_END_ID = 0x7ffe0000;

/** From `first` on, `end` not included. */
export interface IdRange {
  readonly first: number;
  readonly end: number;
}

/** The lines of /etc/subuid or /etc/subgid: what is somebody's. */
export function parseSubordinateIds(text: string): IdRange[] {
  return [...text.matchAll(/^[^#:\s]+:(\d+):(\d+)\s*$/gm)].map(([, first, count]) => ({
    first: Number(first),
    end: Number(first) + Number(count),
  }));
}

/** The first id of a range that nobody has. Throws `resource-exhausted`. */
export function freeRange(taken: ReadonlySet<number>, foreign: readonly IdRange[]): number {
  const isForeign = (id: number) =>
    foreign.some(({ first, end }) => first < id + IDS_PER_NAMESPACE && end > id);
  for (let id = POOL_FIRST_ID; id + IDS_PER_NAMESPACE <= POOL_END_ID; id += IDS_PER_NAMESPACE)
    if (!taken.has(id) && !isForeign(id)) return id;
  throw new SwarmError(
    'resource-exhausted',
    `userns: all ids of the node from ${POOL_FIRST_ID} to ${POOL_END_ID - 1} are given to containers or, in /etc/subuid and /etc/subgid, to users`,
  );
}
