// Services, hairpins and addresses that are gone, as elements of the network's tables, and back. A network has a table for
// each of its families; an address is in that of its own.

import { type IpFamily, ipFamilies } from '../../linux/ip-family.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { addElements, deleteElements, type SetElement } from '../../linux/nftables-maps.ts';
import { addressText, bytesOf, familyOf } from '../ip-bytes.ts';
import {
  type BalanceChange,
  type BalanceSets,
  balanceElements,
  balanceMessages,
  balancesIn,
} from './balance-sets.ts';
import type { Balance } from './balancing.ts';
import { OVERLAY_TABLE, overlayRules, overlaySets } from './overlay-rulesets.ts';
import { type Elements, readRuleset, rulesetMessages } from './ruleset.ts';

export interface TableContents {
  /** By VIP. */
  readonly services: ReadonlyMap<string, Balance>;
  /** Addresses of containers here. */
  readonly hairpin: ReadonlySet<string>;
  readonly gone: ReadonlySet<string>;
}

/** In one transaction: traffic sees the old tables or the new ones. */
export function tableMessages(contents: TableContents, families: readonly IpFamily[]): NetlinkMessage[] {
  return families.flatMap((family) => rulesetMessages(overlayRules[family], elementsOf(contents, family)));
}

export function serviceMessages(changes: readonly BalanceChange[]): NetlinkMessage[] {
  return byFamily(changes, ({ name }) => name).flatMap(([family, part]) =>
    balanceMessages(serviceSetsOf(family), part),
  );
}

/** For addresses that come to this node, or leave it. */
export function hairpinMessages(addresses: readonly string[], action: 'add' | 'delete'): NetlinkMessage[] {
  return memberMessages(overlaySets.hairpin.name, addresses, hairpinKey, action);
}

/** For addresses whose containers have left, or that are used again. */
export function goneMessages(addresses: readonly string[], action: 'add' | 'delete'): NetlinkMessage[] {
  return memberMessages(overlaySets.gone.name, addresses, bytesOf, action);
}

/** undefined when a table is missing, is of another program version, or contradicts itself. */
export function readTables(tables: NetlinkSocket, families: readonly IpFamily[]): TableContents | undefined {
  const found = families.map((family) => readTable(tables, family));
  if (found.includes(undefined)) return undefined;
  return {
    services: new Map(found.flatMap((table) => [...(table?.services ?? [])])),
    hairpin: new Set(found.flatMap((table) => [...(table?.hairpin ?? [])])),
    gone: new Set(found.flatMap((table) => [...(table?.gone ?? [])])),
  };
}

function readTable(tables: NetlinkSocket, family: IpFamily): TableContents | undefined {
  return readRuleset(tables, overlayRules[family], (read) => {
    const elements = { chains: read('svc'), empty: read('svcEmpty'), slots: read('lb') };
    const services = balancesIn(serviceSetsOf(family), elements);
    if (services === undefined) return undefined;
    return {
      services,
      hairpin: new Set(read('hairpin').map(({ key }) => addressText(key.subarray(0, key.length / 2)))),
      gone: new Set(read('gone').map(({ key }) => addressText(key))),
    };
  });
}

function elementsOf(contents: TableContents, family: IpFamily): Elements<keyof typeof overlaySets> {
  const isOurs = (address: string) => familyOf(address) === family;
  const services = new Map([...contents.services].filter(([vip]) => isOurs(vip)));
  const { chains, empty, slots } = balanceElements(serviceSetsOf(family), services);
  const keys = (addresses: Iterable<string>, keyOf: (address: string) => Buffer): SetElement[] =>
    [...addresses].filter(isOurs).map((address) => ({ key: keyOf(address) }));
  return {
    svc: chains,
    svcEmpty: empty,
    lb: slots,
    hairpin: keys(contents.hairpin, hairpinKey),
    gone: keys(contents.gone, bytesOf),
  };
}

function serviceSetsOf(family: IpFamily): BalanceSets {
  return {
    table: OVERLAY_TABLE,
    family,
    chains: overlaySets.svc.name,
    empty: overlaySets.svcEmpty.name,
    slots: overlaySets.lb.name,
    keyOf: bytesOf,
    // Behind the address of a key there may be a slot.
    nameIn: (key) => addressText(key.subarray(0, ipFamilies[family].addressBytes)),
    valueOf: bytesOf,
    backendIn: addressText,
  };
}

function memberMessages(
  set: string,
  addresses: readonly string[],
  keyOf: (address: string) => Buffer,
  action: 'add' | 'delete',
): NetlinkMessage[] {
  return byFamily(addresses, (address) => address).flatMap(([family, part]) => {
    const keys = part.map(keyOf);
    if (action === 'delete') return deleteElements(OVERLAY_TABLE, set, keys, family);
    const elements = keys.map((key) => ({ key }));
    return addElements(OVERLAY_TABLE, set, elements, family);
  });
}

function byFamily<T>(list: readonly T[], addressOf: (item: T) => string): [IpFamily, T[]][] {
  return (['ipv4', 'ipv6'] as const).map((family) => [
    family,
    list.filter((item) => familyOf(addressOf(item)) === family),
  ]);
}

function hairpinKey(address: string): Buffer {
  const bytes = bytesOf(address);
  return Buffer.concat([bytes, bytes]);
}
