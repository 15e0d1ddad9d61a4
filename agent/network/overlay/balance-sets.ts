// Who gets new connections, as elements of nf_tables, and back: a name (a virtual address, a published port) leads to a
// chain, name and slot to a backend.

import type { IpFamily } from '../../linux/ip-family.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import { addElements, deleteElements, type SetElement } from '../../linux/nftables-maps.ts';
import { type Balance, chainSlots } from './balancing.ts';

/** The sets of one kind of names, and how names and backends are written in them. */
export interface BalanceSets {
  readonly table: string;
  readonly family: IpFamily;
  /** Name → chain. */
  readonly chains: string;
  /** Name without backends → chain that refuses; absent when such names have no element. */
  readonly empty?: string;
  /** Name and slot → backend. */
  readonly slots: string;
  readonly keyOf: (name: string) => Buffer;
  readonly nameIn: (key: Buffer) => string;
  readonly valueOf: (backend: string) => Buffer;
  readonly backendIn: (value: Buffer) => string;
}

export interface BalanceChange {
  readonly name: string;
  /** undefined: there is none. */
  readonly from: Balance | undefined;
  readonly to: Balance | undefined;
}

export type BalanceElements = Readonly<Record<'chains' | 'empty' | 'slots', readonly SetElement[]>>;

export function balanceElements(sets: BalanceSets, balances: ReadonlyMap<string, Balance>): BalanceElements {
  const all = [...balances];
  const chainElement = ([name, { chain }]: readonly [string, Balance]): SetElement => ({
    key: sets.keyOf(name),
    value: chain,
  });
  return {
    chains: all.filter(([, { slots }]) => slots.length > 0).map(chainElement),
    empty: all.filter(([, { slots }]) => slots.length === 0).map(chainElement),
    slots: all.flatMap(([name, { slots }]) =>
      slots.map((backend, slot) => ({ key: slotKey(sets, name, slot), value: sets.valueOf(backend) })),
    ),
  };
}

/** One transaction's messages: old elements first, since a key that is there with another value is refused. */
export function balanceMessages(sets: BalanceSets, changes: readonly BalanceChange[]): NetlinkMessage[] {
  const empty = sets.empty ?? sets.chains;
  const chainSetOf = ({ slots }: Balance): string => (slots.length > 0 ? sets.chains : empty);
  const deleted = new Map<string, Buffer[]>([sets.chains, empty, sets.slots].map((set) => [set, []]));
  const added = new Map<string, SetElement[]>([sets.slots, sets.chains, empty].map((set) => [set, []]));
  for (const { name, from, to } of changes) {
    if (from?.chain !== to?.chain) {
      if (from !== undefined) deleted.get(chainSetOf(from))!.push(sets.keyOf(name));
      if (to !== undefined) added.get(chainSetOf(to))!.push({ key: sets.keyOf(name), value: to.chain });
    }
    const slots = Math.max(from?.slots.length ?? 0, to?.slots.length ?? 0);
    for (let slot = 0; slot < slots; slot++) {
      const before = from?.slots[slot];
      const after = to?.slots[slot];
      if (before === after) continue;
      const key = slotKey(sets, name, slot);
      if (before !== undefined) deleted.get(sets.slots)!.push(key);
      if (after !== undefined) added.get(sets.slots)!.push({ key, value: sets.valueOf(after) });
    }
  }
  return [
    ...[...deleted].flatMap(([set, keys]) => deleteElements(sets.table, set, keys, sets.family)),
    ...[...added].flatMap(([set, elements]) => addElements(sets.table, set, elements, sets.family)),
  ];
}

/** undefined when a name's slots are not what its chain expects. */
export function balancesIn(sets: BalanceSets, elements: BalanceElements): Map<string, Balance> | undefined {
  const balances = new Map<string, { chain: string; slots: string[] }>();
  for (const { key, value } of [...elements.chains, ...elements.empty]) {
    balances.set(sets.nameIn(key), { chain: String(value), slots: [] });
  }
  for (const { key, value } of elements.slots) {
    const slots = balances.get(sets.nameIn(key))?.slots;
    if (slots === undefined || !Buffer.isBuffer(value)) return undefined;
    slots[key.readUInt32LE(key.length - SLOT_BYTES)] = sets.backendIn(value);
  }
  for (const { chain, slots } of balances.values()) {
    if (chainSlots(chain) !== slots.length || slots.includes(undefined as never)) return undefined;
  }
  return balances;
}

const SLOT_BYTES = 4;

function slotKey(sets: BalanceSets, name: string, slot: number): Buffer {
  const key = sets.keyOf(name);
  const bytes = Buffer.alloc(key.length + SLOT_BYTES);
  key.copy(bytes);
  bytes.writeUInt32LE(slot, key.length);
  return bytes;
}
