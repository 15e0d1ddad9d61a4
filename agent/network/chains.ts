// Tables of nf_tables as lists of chains, and the chains that more than one table has.

import type { IpFamily } from '../linux/ip-family.ts';
import type { NetlinkMessage } from '../linux/netlink.ts';
import {
  addChain,
  addRegularChain,
  addRule,
  addTable,
  type BaseChain,
  deleteTable,
  drop,
  interfaceIs,
  isDestinationTranslated,
  isEstablishedOrRelated,
  isInvalid,
  type Rule,
  sourceIsForeign,
  type TableFamily,
} from '../linux/nftables.ts';

export interface Chain {
  readonly name: string;
  /** Absent for chains that others go to. */
  readonly base?: BaseChain;
  readonly rules: readonly Rule[];
}

/** What a transaction begins with that writes a table anew. */
export function replaceTable(table: string, family?: TableFamily): NetlinkMessage[] {
  // Deleting what is not there would fail the transaction.
  return [addTable(table, family), deleteTable(table, family), addTable(table, family)];
}

/** All chains before all rules: rules and elements go to chains. */
export function chainMessages(table: string, chains: readonly Chain[], family?: IpFamily): NetlinkMessage[] {
  return [
    ...chains.map(({ name, base }) =>
      base === undefined ? addRegularChain(table, name, family) : addChain(table, name, base, family),
    ),
    ...chains.flatMap(({ name, rules }) => rules.map((rule) => addRule(table, name, rule, family))),
  ];
}

export function ruleCount(chains: readonly Chain[]): number {
  return chains.reduce((sum, { rules }) => sum + rules.length, 0);
}

/** Of the host's tables, whose priorities are just before Docker's: what enters a network, from wherever. */
export function hostIsolation(toUplink: Rule, fromUplink: Rule): Chain {
  return {
    name: 'isolate',
    base: { type: 'filter', hook: 'forward', priority: -5 },
    rules: [
      // Nothing but published ports and answers.
      dropUnlessTranslated(toUplink),
      // It would leave with an address that nobody outside can answer.
      [...fromUplink, ...isInvalid(), ...drop()],
    ],
  };
}

/** The same inside, for what the host lets through. */
export function networkIsolation(fromUplink: Rule): Chain {
  return {
    name: 'isolate',
    base: { type: 'filter', hook: 'forward', priority: 0 },
    rules: [dropUnlessTranslated(fromUplink)],
  };
}

function dropUnlessTranslated(where: Rule): Rule {
  return [...where, ...isEstablishedOrRelated(false), ...isDestinationTranslated(false), ...drop()];
}

/** What leaves for ::1 is not translated: the answer would not find back. */
export const IPV6_LOOPBACK = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/**
 * A container does not send with the address of another: what IPv4 has a setting for (rp_filter). `ownLinks` are those that
 * lead to no container.
 */
export function ownAddressesOnly(ownLinks: readonly string[]): Chain {
  return {
    name: 'own_addresses_only',
    base: { type: 'filter', hook: 'prerouting', priority: -300 },
    rules: [
      [...ownLinks.flatMap((name) => interfaceIs('inputName', name, false)), ...sourceIsForeign(), ...drop()],
    ],
  };
}
