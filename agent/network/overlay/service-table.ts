// Services, hairpins and addresses that are gone, as elements of the network's table, and back.

import type { NetlinkMessage } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { addElements, deleteElements } from '../../linux/nftables-maps.ts';
import { type BalanceSets, balanceElements, balancesIn } from './balance-sets.ts';
import type { Balance } from './balancing.ts';
import { OVERLAY_TABLE, overlayRules, overlaySets } from './overlay-rulesets.ts';
import { bytesOf } from './overlay-wiring.ts';
import { type Elements, readRuleset } from './ruleset.ts';

export interface TableContents {
  /** By VIP. */
  readonly services: ReadonlyMap<string, Balance>;
  /** Addresses of containers here. */
  readonly hairpin: ReadonlySet<string>;
  readonly gone: ReadonlySet<string>;
}

export const serviceSets: BalanceSets = {
  table: OVERLAY_TABLE,
  chains: overlaySets.svc.name,
  empty: overlaySets.svcEmpty.name,
  slots: overlaySets.lb.name,
  keyOf: bytesOf,
  nameIn: addressIn,
  valueOf: bytesOf,
  backendIn: addressIn,
};

export function elementsOf({ services, hairpin, gone }: TableContents): Elements<keyof typeof overlaySets> {
  const { chains, empty, slots } = balanceElements(serviceSets, services);
  return {
    svc: chains,
    svcEmpty: empty,
    lb: slots,
    hairpin: [...hairpin].map((address) => ({ key: hairpinKey(address) })),
    gone: [...gone].map((address) => ({ key: bytesOf(address) })),
  };
}

/** For an address that comes to this node, or leaves it. */
export function hairpinMessages(address: string, action: 'add' | 'delete'): NetlinkMessage[] {
  const key = hairpinKey(address);
  const set = overlaySets.hairpin.name;
  return action === 'add'
    ? addElements(OVERLAY_TABLE, set, [{ key }])
    : deleteElements(OVERLAY_TABLE, set, [key]);
}

/** For addresses whose containers have left, or that are used again. */
export function goneMessages(addresses: readonly string[], action: 'add' | 'delete'): NetlinkMessage[] {
  const keys = addresses.map(bytesOf);
  const set = overlaySets.gone.name;
  return action === 'add'
    ? addElements(
        OVERLAY_TABLE,
        set,
        keys.map((key) => ({ key })),
      )
    : deleteElements(OVERLAY_TABLE, set, keys);
}

/** undefined when the table is missing, is of another program version, or contradicts itself. */
export function readTable(tables: NetlinkSocket): TableContents | undefined {
  return readRuleset(tables, overlayRules, (elementsOf) => {
    const elements = { chains: elementsOf('svc'), empty: elementsOf('svcEmpty'), slots: elementsOf('lb') };
    const services = balancesIn(serviceSets, elements);
    if (services === undefined) return undefined;
    return {
      services,
      hairpin: new Set(elementsOf('hairpin').map(({ key }) => addressIn(key))),
      gone: new Set(elementsOf('gone').map(({ key }) => addressIn(key))),
    };
  });
}

function addressIn(key: Buffer): string {
  return key.subarray(0, 4).join('.');
}

function hairpinKey(address: string): Buffer {
  const bytes = bytesOf(address);
  return Buffer.concat([bytes, bytes]);
}
