// Services, hairpins and addresses that are gone, as elements of the network's table, and back.

import { SystemCallError } from '../../linux/libc.ts';
import { netfilterFamilies } from '../../linux/netfilter.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { decodeChain, listChains, listRules } from '../../linux/nftables.ts';
import {
  addElements,
  decodeElements,
  deleteElements,
  listElements,
  type SetElement,
} from '../../linux/nftables-maps.ts';
import {
  OVERLAY_TABLE,
  type OverlayElements,
  overlaySets,
  rulesetMark,
  rulesetSize,
  serviceChain,
} from './overlay-rulesets.ts';
import { bytesOf } from './overlay-wiring.ts';

export interface TableContents {
  /** VIP → the backend of each slot. */
  readonly services: ReadonlyMap<string, readonly string[]>;
  /** Addresses of containers here. */
  readonly hairpin: ReadonlySet<string>;
  readonly gone: ReadonlySet<string>;
}

export interface ServiceChange {
  readonly vip: string;
  /** undefined: there is none. */
  readonly from: readonly string[] | undefined;
  readonly to: readonly string[] | undefined;
}

const ENOENT = 2;

export function elementsOf({ services, hairpin, gone }: TableContents): OverlayElements {
  const entries = [...services];
  return {
    svc: entries.filter(([, slots]) => slots.length > 0).map(serviceElement),
    svcEmpty: entries.filter(([, slots]) => slots.length === 0).map(serviceElement),
    lb: entries.flatMap(([vip, slots]) => slots.map((backend, slot) => slotElement(vip, slot, backend))),
    hairpin: [...hairpin].map((address) => ({ key: hairpinKey(address) })),
    gone: [...gone].map((address) => ({ key: bytesOf(address) })),
  };
}

/** One transaction's messages: old elements first, since a key that is there with another value is refused. */
export function serviceMessages(changes: readonly ServiceChange[]): NetlinkMessage[] {
  const deleted = { svc: [] as Buffer[], svc_empty: [] as Buffer[], lb: [] as Buffer[] };
  const added = { lb: [] as SetElement[], svc: [] as SetElement[], svc_empty: [] as SetElement[] };
  for (const { vip, from, to } of changes) {
    if (from?.length !== to?.length) {
      if (from !== undefined) deleted[from.length > 0 ? 'svc' : 'svc_empty'].push(bytesOf(vip));
      if (to !== undefined) added[to.length > 0 ? 'svc' : 'svc_empty'].push(serviceElement([vip, to]));
    }
    const slots = Math.max(from?.length ?? 0, to?.length ?? 0);
    for (let slot = 0; slot < slots; slot++) {
      const before = from?.[slot];
      const after = to?.[slot];
      if (before === after) continue;
      if (before !== undefined) deleted.lb.push(slotKey(vip, slot));
      if (after !== undefined) added.lb.push(slotElement(vip, slot, after));
    }
  }
  return [
    ...Object.entries(deleted).flatMap(([set, keys]) => deleteElements(OVERLAY_TABLE, set, keys)),
    ...Object.entries(added).flatMap(([set, elements]) => addElements(OVERLAY_TABLE, set, elements)),
  ];
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
  const hasMark = tables
    .dump(listChains)
    .map(({ body }) => decodeChain(body))
    .some(
      ({ family, table, name }) =>
        family === netfilterFamilies.ipv4 && table === OVERLAY_TABLE && name === rulesetMark,
    );
  if (!hasMark || tables.dump(listRules(OVERLAY_TABLE)).length !== rulesetSize) return undefined;
  try {
    const services = readServices(tables);
    if (services === undefined) return undefined;
    return {
      services,
      hairpin: new Set(readElements(tables, 'hairpin').map(({ key }) => addressIn(key))),
      gone: new Set(readElements(tables, 'gone').map(({ key }) => addressIn(key))),
    };
  } catch (error) {
    if (error instanceof SystemCallError && error.errno === ENOENT) return undefined;
    throw error;
  }
}

/** undefined when a service's slots are not what its chain expects. */
function readServices(tables: NetlinkSocket): Map<string, string[]> | undefined {
  const services = new Map<string, string[]>();
  const chains = new Map<string, string>();
  for (const { key, value } of [...readElements(tables, 'svc'), ...readElements(tables, 'svcEmpty')]) {
    services.set(addressIn(key), []);
    chains.set(addressIn(key), String(value));
  }
  for (const { key, value } of readElements(tables, 'lb')) {
    const slots = services.get(addressIn(key));
    if (slots === undefined || !Buffer.isBuffer(value)) return undefined;
    slots[key.readUInt32LE(4)] = addressIn(value);
  }
  for (const [vip, slots] of services) {
    if (chains.get(vip) !== serviceChain(slots.length) || slots.includes(undefined as never))
      return undefined;
  }
  return services;
}

function readElements(tables: NetlinkSocket, set: keyof typeof overlaySets): SetElement[] {
  return tables.dump(listElements(OVERLAY_TABLE, overlaySets[set].name)).flatMap(decodeElements);
}

function addressIn(key: Buffer): string {
  return key.subarray(0, 4).join('.');
}

function serviceElement([vip, slots]: readonly [string, readonly string[]]): SetElement {
  return { key: bytesOf(vip), value: serviceChain(slots.length) };
}

function slotElement(vip: string, slot: number, backend: string): SetElement {
  return { key: slotKey(vip, slot), value: bytesOf(backend) };
}

function slotKey(vip: string, slot: number): Buffer {
  const key = Buffer.alloc(8);
  bytesOf(vip).copy(key);
  key.writeUInt32LE(slot, 4);
  return key;
}

function hairpinKey(address: string): Buffer {
  const bytes = bytesOf(address);
  return Buffer.concat([bytes, bytes]);
}
