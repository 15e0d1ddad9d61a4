// A table that never changes but in the elements of its sets: how it is written, and how one tells that the kernel has it.

import { createHash } from 'node:crypto';
import type { IpFamily } from '../../linux/ip-family.ts';
import { SystemCallError } from '../../linux/libc.ts';
import { netfilterFamilies } from '../../linux/netfilter.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { addRegularChain, decodeChain, listChains, listRules } from '../../linux/nftables.ts';
import {
  addElements,
  addSet,
  decodeElements,
  listElements,
  type SetElement,
  type SetOptions,
} from '../../linux/nftables-maps.ts';
import { type Chain, chainMessages, replaceTable, ruleCount } from '../chains.ts';

export interface Ruleset<Set extends string> {
  readonly table: string;
  readonly family: IpFamily;
  readonly sets: Readonly<Record<Set, SetOptions>>;
  readonly messages: readonly NetlinkMessage[];
  /** An empty chain of this name tells which rules a table has: another program version may have other ones. */
  readonly mark: string;
  readonly ruleCount: number;
}

export type Elements<Set extends string> = Readonly<Record<Set, readonly SetElement[]>>;

const ENOENT = 2;

export function planRuleset<Set extends string>(
  table: string,
  sets: Readonly<Record<Set, SetOptions>>,
  chains: readonly Chain[],
  family: IpFamily = 'ipv4',
): Ruleset<Set> {
  const messages = [
    ...Object.values<SetOptions>(sets).map((set, index) => addSet(table, set, index + 1, family)),
    ...chainMessages(table, chains, family),
  ];
  const hash = createHash('sha256').update(Buffer.concat(messages.map(({ body }) => body)));
  const mark = `rules_${hash.digest('hex').slice(0, 12)}`;
  return { table, family, sets, messages, mark, ruleCount: ruleCount(chains) };
}

/** Replaces the table in one transaction. */
export function rulesetMessages<Set extends string>(
  { table, family, sets, messages, mark }: Ruleset<Set>,
  elements: Elements<Set>,
): NetlinkMessage[] {
  return [
    ...replaceTable(table, family),
    ...messages,
    ...(Object.keys(sets) as Set[]).flatMap((set) =>
      addElements(table, sets[set].name, elements[set], family),
    ),
    addRegularChain(table, mark, family),
  ];
}

/** What `read` makes of the table; undefined when it is not there, or another program version or somebody else wrote it. */
export function readRuleset<Set extends string, T>(
  tables: NetlinkSocket,
  ruleset: Ruleset<Set>,
  read: (elementsOf: (set: Set) => SetElement[]) => T | undefined,
): T | undefined {
  const hasMark = tables
    .dump(listChains)
    .map(({ body }) => decodeChain(body))
    .some(
      ({ family, table, name }) =>
        family === netfilterFamilies[ruleset.family] && table === ruleset.table && name === ruleset.mark,
    );
  if (!hasMark || tables.dump(listRules(ruleset.table, ruleset.family)).length !== ruleset.ruleCount)
    return undefined;
  try {
    return read((set) => readElements(tables, ruleset.table, ruleset.sets[set].name, ruleset.family));
  } catch (error) {
    if (error instanceof SystemCallError && error.errno === ENOENT) return undefined;
    throw error;
  }
}

/** ENOENT when there is no such set. */
export function readElements(
  tables: NetlinkSocket,
  table: string,
  set: string,
  family: IpFamily,
): SetElement[] {
  return tables.dump(listElements(table, set, family)).flatMap(decodeElements);
}
