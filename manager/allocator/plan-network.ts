// What a network gets that its spec leaves open: number, subnets, gateways, MTU. Pure.

import { createHash } from 'node:crypto';
import { defined } from '../../core/assert.ts';
import { defaultClusterNetwork } from '../../core/defaults.ts';
import { effectiveNetwork } from '../../core/effective-network.ts';
import { SwarmError } from '../../core/errors.ts';
import { emptySubnet, type Network, type NetworkSpec, type Subnet } from '../../core/generated/objects.ts';
import {
  type AddressFamily,
  contains,
  covers,
  formatAddress,
  formatPrefix,
  overlaps,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixSize,
} from '../../core/ip-address.ts';
import type { TablesView } from '../store/tables.ts';

/** Above what Docker uses, so that both can share a port of a host. */
const FIRST_VNI = 0x100000;
const LAST_VNI = 0xffffff;
/** Outer IPv4, UDP and VXLAN headers and the inner Ethernet header. */
const VXLAN_OVERHEAD = 50;
/** Outer IPv4 and UDP headers and WireGuard's own. */
const WIREGUARD_OVERHEAD = 60;
const ETHERNET_MTU = 1500;
/** Part of the shared address space (RFC 6598), which no network of containers and no site uses. */
const TUNNEL_PREFIX = '100.64';

export type NetworkChoice = Pick<Network, 'vni' | 'subnets' | 'mtu'>;

/** Throws `resource-exhausted` or `failed-precondition` with what is missing. */
export function planNetwork(view: TablesView, network: Network): NetworkChoice {
  const source = view.byName('network', network.spec.configFrom);
  const spec = effectiveNetwork(network.spec, source?.spec);
  if (spec.configOnly) return { vni: 0, subnets: [], mtu: 0 };
  const others = [...view.network.values()].filter(({ id }) => id !== network.id);
  const taken = others.flatMap(({ subnets }) => prefixesOf(subnets));
  const subnets = merge(network.subnets, spec.subnets).map((subnet) => complete(subnet, taken));
  const has = (family: AddressFamily) => prefixesOf(subnets).some((prefix) => prefix.family === family);
  if (!has(4)) subnets.push(withGateway(formatPrefix(chooseSubnet(view, taken))));
  if (spec.ipv6 && !has(6)) subnets.push(withGateway(formatPrefix(localPrefix(network.id))));
  return {
    subnets,
    vni: isRouted(spec) ? network.vni || chooseVni(others, spec) : 0,
    mtu: network.mtu || chooseMtu(view, spec),
  };
}

/** By our own data path; a bridge is one that ends at its node. */
function isRouted({ driver }: NetworkSpec): boolean {
  return driver === 'overlay' || driver === 'bridge';
}

/** Nothing that was chosen is taken away; a subnet that covers a chosen one takes its place and gateway. */
function merge(chosen: readonly Subnet[], asked: readonly Subnet[]): Subnet[] {
  const isCovered = (wide: Subnet, narrow: Subnet) => covers(prefixOf(wide), prefixOf(narrow));
  const kept = chosen.map((subnet) => {
    const wider = asked.find((other) => isCovered(other, subnet));
    return wider === undefined ? subnet : { ...wider, gateway: subnet.gateway };
  });
  return [...kept, ...asked.filter((subnet) => !chosen.some((other) => isCovered(subnet, other)))];
}

function complete(subnet: Subnet, taken: readonly Prefix[]): Subnet {
  const prefix = prefixOf(subnet);
  const other = taken.find((candidate) => overlaps(candidate, prefix));
  if (other !== undefined)
    throw new SwarmError(
      'failed-precondition',
      `subnet ${subnet.subnet} overlaps with ${formatPrefix(other)} of another network`,
    );
  return subnet.gateway === '' ? { ...subnet, gateway: firstAddress(subnet) } : subnet;
}

function withGateway(text: string): Subnet {
  const subnet = { ...emptySubnet, subnet: text };
  return { ...subnet, gateway: firstAddress(subnet) };
}

/** Of the subnet, that nothing else has. */
function firstAddress({ subnet, auxiliaryAddresses }: Subnet): string {
  const { base, family } = prefixOf({ subnet });
  const used = new Set(Object.values(auxiliaryAddresses));
  for (let value = base + 1n; ; value++) {
    const text = formatAddress({ family, value });
    if (!used.has(text)) return text;
  }
}

/** The first of the cluster's pools that no network has, and no node is in. */
function chooseSubnet(view: TablesView, taken: readonly Prefix[]): Prefix {
  const [cluster] = view.cluster.values();
  const { addressPools, addressPoolMaskLength } = cluster?.network ?? defaultClusterNetwork;
  const hosts = [...view.node.values()]
    .flatMap(({ status, dataPathAddress }) => [status.address, dataPathAddress])
    .flatMap((text) => parseAddress(text) ?? []);
  for (const text of addressPools) {
    const pool = parsePrefix(text, { dropsHostBits: true });
    if (pool === undefined || pool.family !== 4 || pool.length > addressPoolMaskLength) continue;
    const inPool = taken.filter((other) => overlaps(pool, other));
    for (const candidate of subnetsOf(pool, addressPoolMaskLength)) {
      if (inPool.some((other) => overlaps(other, candidate))) continue;
      if (!hosts.some((host) => contains(candidate, host))) return candidate;
    }
  }
  throw new SwarmError(
    'resource-exhausted',
    `no free subnet: the address pools (${addressPools.join(', ')}) have no /${addressPoolMaskLength} left`,
    { hint: 'Name one with --subnet, or remove networks that nothing uses: tsswarm network prune.' },
  );
}

function* subnetsOf(pool: Prefix, length: number): Generator<Prefix> {
  const size = prefixSize({ family: pool.family, length });
  const end = pool.base + prefixSize(pool);
  for (let base = pool.base; base < end; base += size) yield { family: pool.family, base, length };
}

/** A /64 of its own, by RFC 4193: fd, and 56 bits that follow from the network's id. */
function localPrefix(networkId: string): Prefix {
  const digest = createHash('sha256').update(networkId).digest('hex').slice(0, 14);
  return { family: 6, base: BigInt(`0xfd${digest}`) << 64n, length: 64 };
}

/** One after the greatest that is in use: a number that was given back may still be known somewhere. */
function chooseVni(others: readonly Network[], spec: NetworkSpec): number {
  const used = new Set(others.map(({ vni }) => vni));
  if (spec.vni !== 0) {
    if (!used.has(spec.vni)) return spec.vni;
    throw new SwarmError('failed-precondition', `vni ${spec.vni} is in use by another network`);
  }
  let vni = Math.max(FIRST_VNI - 1, ...others.map((network) => network.vni)) + 1;
  while (used.has(vni) || vni > LAST_VNI) vni = vni > LAST_VNI ? FIRST_VNI : vni + 1;
  return vni;
}

/** The first address inside the tunnel that no node has. */
export function planTunnelAddress(view: TablesView): string {
  const used = new Set([...view.node.values()].map(({ tunnelAddress }) => tunnelAddress));
  for (let number = 1; number < 65_535; number++) {
    const address = `${TUNNEL_PREFIX}.${number >> 8}.${number & 255}`;
    if (!used.has(address)) return address;
  }
  throw new SwarmError('resource-exhausted', 'all addresses of the tunnel are in use');
}

/** What the path to each node carries that is known now. */
function chooseMtu(view: TablesView, spec: NetworkSpec): number {
  if (spec.mtu !== 0) return spec.mtu;
  if (!isRouted(spec)) return 0;
  const known = [...view.node.values()]
    .map(({ description }) => description.dataPathMtu)
    .filter((mtu) => mtu > 0);
  const path = known.length === 0 ? ETHERNET_MTU : Math.min(...known);
  return path - VXLAN_OVERHEAD - (spec.encrypted ? WIREGUARD_OVERHEAD : 0);
}

/** Of a spec that has been checked. */
function prefixOf({ subnet }: Pick<Subnet, 'subnet'>): Prefix {
  return defined(parsePrefix(subnet), `${subnet} is no subnet`);
}

function prefixesOf(subnets: readonly Subnet[]): Prefix[] {
  return subnets.map(prefixOf);
}
