// What may become of a network: whether a new one has room beside the others, and how one that is there may change. Pure.

import { isDeepStrictEqual } from 'node:util';
import { invalidField, SwarmError } from '../../core/errors.ts';
import type { Network, NetworkSpec, Subnet } from '../../core/generated/objects.ts';
import {
  covers,
  formatAddress,
  formatPrefix,
  overlaps,
  type Prefix,
  parseAddress,
  parsePrefix,
} from '../../core/ip-address.ts';
import { validateNetworkSpec } from '../../core/validate-network.ts';
import type { TablesView } from '../store/tables.ts';
import { ingressNetwork } from './network-use.ts';

/** What a network keeps for as long as it is there, by the name of its flag. */
const FIXED: Readonly<Record<string, keyof NetworkSpec>> = {
  name: 'name',
  driver: 'driver',
  opt: 'options',
  internal: 'internal',
  attachable: 'attachable',
  ingress: 'ingress',
  encrypted: 'encrypted',
  ipv6: 'ipv6',
  mtu: 'mtu',
  'config-only': 'configOnly',
  'config-from': 'configFrom',
  'opt: vxlanid_list': 'vni',
};

/** The spec with every address written in the one way that it has. Throws what `validateNetworkSpec` throws. */
export function validNetworkSpec(spec: NetworkSpec): NetworkSpec {
  validateNetworkSpec(spec);
  return { ...spec, subnets: spec.subnets.map(canonicalSubnet) };
}

/** Throws when the cluster has something that a network of this spec would be in conflict with. */
export function requireRoom(view: TablesView, spec: NetworkSpec): void {
  if (view.byName('network', spec.name) !== undefined)
    throw new SwarmError('already-exists', `network with name ${spec.name} already exists`);
  const ingress = spec.ingress ? ingressNetwork(view) : undefined;
  if (ingress !== undefined)
    throw new SwarmError(
      'already-exists',
      `ingress: network ${ingress.spec.name} is the ingress network already`,
      {
        hint: `There is one at most: remove it first with "tsswarm network rm ${ingress.spec.name}".`,
      },
    );
  if (spec.configFrom !== '' && view.byName('network', spec.configFrom)?.spec.configOnly !== true)
    throw invalidField('config-from', `there is no config-only network ${spec.configFrom}`);
  requireFreeSubnets(view, spec, undefined);
  if (spec.vni === 0) return;
  for (const other of view.network.values())
    if (other.vni === spec.vni || other.spec.vni === spec.vni)
      throw invalidField('opt', `vxlanid_list: ${spec.vni} is that of network ${other.spec.name}`);
}

/**
 * The network with another spec: labels and policy as said, subnets added or widened. What the managers have chosen becomes
 * part of the spec as soon as it names subnets. Throws when anything else changes, or a subnet would be taken away.
 */
export function changedNetwork(view: TablesView, network: Network, next: NetworkSpec): Network {
  for (const [flag, field] of Object.entries(FIXED))
    if (!isDeepStrictEqual(network.spec[field], next[field]))
      throw invalidField(flag, `network ${network.spec.name} keeps what it was made with`);
  const spec = { ...next, subnets: changedSubnets(network, next.subnets) };
  validateNetworkSpec(spec);
  requireFreeSubnets(view, spec, network.id);
  return { ...network, spec };
}

function changedSubnets(network: Network, wanted: readonly Subnet[]): Subnet[] {
  const { spec } = network;
  if (wanted.length === 0 && spec.subnets.length === 0) return [];
  const current = subnetsOf(network);
  const added = wanted.filter((subnet) => successorOf(current, subnet) === undefined);
  const kept = current.map((subnet) => {
    const widened = wanted.find((candidate) => successorOf(current, candidate) === subnet);
    if (widened !== undefined) return widenedSubnet(subnet, widened);
    if (isIn(spec.subnets, subnet)) throw invalidField('subnet', `${subnet.subnet} cannot be taken away`);
    return subnet;
  });
  return [...kept, ...added];
}

/** What the managers chose, then what the spec says with the gateways that were chosen for it. */
function subnetsOf({ spec, subnets }: Network): Subnet[] {
  const isSaid = (chosen: Subnet, said: Subnet) => overlaps(prefixOfSubnet(said), prefixOfSubnet(chosen));
  return [
    ...subnets.filter((chosen) => !spec.subnets.some((said) => isSaid(chosen, said))),
    ...spec.subnets.map((said) => {
      const gateway = said.gateway || (subnets.find((chosen) => isSaid(chosen, said))?.gateway ?? '');
      return { ...said, gateway };
    }),
  ];
}

/** The one of the current subnets that `wanted` takes the place of; undefined when it is new. */
function successorOf(current: readonly Subnet[], wanted: Subnet): Subnet | undefined {
  const touched = current.filter((subnet) => overlaps(prefixOfSubnet(subnet), prefixOfSubnet(wanted)));
  const [subnet, another] = touched;
  if (subnet === undefined) return undefined;
  if (another !== undefined)
    throw invalidField('subnet', `${wanted.subnet} is over both ${subnet.subnet} and ${another.subnet}`);
  if (!covers(prefixOfSubnet(wanted), prefixOfSubnet(subnet)))
    throw invalidField('subnet', `${wanted.subnet} is less than ${subnet.subnet}, which can only be widened`);
  return subnet;
}

/** Addresses that were given out stay what they are: so do the gateway and all that was withheld. */
function widenedSubnet(current: Subnet, wanted: Subnet): Subnet {
  const gateway = current.gateway || wanted.gateway;
  if (wanted.gateway !== '' && wanted.gateway !== gateway)
    throw invalidField('gateway', `${current.gateway} of ${current.subnet} stays: containers know it`);
  if (!isDeepStrictEqual(wanted.auxiliaryAddresses, current.auxiliaryAddresses))
    throw invalidField('aux-address', `those of ${current.subnet} stay as they are`);
  if (!covers(rangeOf(wanted), rangeOf(current)))
    throw invalidField('ip-range', `${formatPrefix(rangeOf(current))} can only be widened`);
  return { ...wanted, gateway };
}

function requireFreeSubnets(view: TablesView, spec: NetworkSpec, exceptId: string | undefined): void {
  if (spec.configOnly) return;
  for (const other of view.network.values()) {
    if (other.id === exceptId || other.spec.configOnly) continue;
    for (const subnet of spec.subnets) {
      const taken = [...other.subnets, ...other.spec.subnets].find((candidate) =>
        overlaps(prefixOfSubnet(candidate), prefixOfSubnet(subnet)),
      );
      if (taken !== undefined)
        throw new SwarmError(
          'failed-precondition',
          `subnet: ${subnet.subnet} overlaps with ${taken.subnet} of network ${other.spec.name}`,
        );
    }
  }
}

function isIn(subnets: readonly Subnet[], { subnet }: Subnet): boolean {
  return subnets.some((candidate) => candidate.subnet === subnet);
}

function prefixOfSubnet({ subnet }: Subnet): Prefix {
  const prefix = parsePrefix(subnet);
  if (prefix === undefined) throw invalidField('subnet', `"${subnet}" must be a network such as 10.0.1.0/24`);
  return prefix;
}

function rangeOf(subnet: Subnet): Prefix {
  return parsePrefix(subnet.ipRange) ?? prefixOfSubnet(subnet);
}

function canonicalSubnet({ subnet, ipRange, gateway, auxiliaryAddresses }: Subnet): Subnet {
  return {
    subnet: canonicalPrefix(subnet),
    ipRange: canonicalPrefix(ipRange),
    gateway: canonicalAddress(gateway),
    auxiliaryAddresses: Object.fromEntries(
      Object.entries(auxiliaryAddresses).map(([name, text]) => [name, canonicalAddress(text)]),
    ),
  };
}

function canonicalPrefix(text: string): string {
  const prefix = parsePrefix(text);
  return prefix === undefined ? text : formatPrefix(prefix);
}

function canonicalAddress(text: string): string {
  const address = parseAddress(text);
  return address === undefined ? text : formatAddress(address);
}
