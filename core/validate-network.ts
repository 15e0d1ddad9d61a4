// What makes a network acceptable, as far as its spec alone can tell. Every refusal names the flag and says what would
// be right. Overlaps with other networks only the managers know.

import { invalidField } from './errors.ts';
import type { NetworkDriver, NetworkSpec, PolicyRule, Subnet } from './generated/objects.ts';
import {
  type Address,
  addressBits,
  contains,
  covers,
  formatAddress,
  formatPrefix,
  lastAddress,
  overlaps,
  type Prefix,
  parseAddress,
  parsePrefix,
} from './ip-address.ts';
import { isNodeNetwork } from './validate-endpoint.ts';
import { requireLabels, requireName, requireWhole } from './validate-fields.ts';

// What every host has to take; IPv6 asks for more.
const MTU_MIN = 576;
const MTU_MIN_IPV6 = 1280;
const MTU_MAX = 65_535;
/** 24 bits of the VXLAN header. */
const VNI_MAX = 2 ** 24 - 1;
/** Bits of addresses in the smallest subnet: network, broadcast and gateway leave five. */
const HOST_BITS_MIN = 3;
/** Ranges that mean something to every host. 169.254/16 has the links between a node and its networks as well. */
const RESERVED: readonly (readonly [Prefix, string])[] = (
  [
    ['0.0.0.0/8', 'no addresses of hosts'],
    ['127.0.0.0/8', 'loopback'],
    ['169.254.0.0/16', 'link-local'],
    ['224.0.0.0/3', 'multicast or reserved'],
    ['::/8', 'loopback or reserved'],
    ['fe80::/10', 'link-local'],
    ['ff00::/8', 'multicast'],
  ] as const
).map(([text, meaning]) => [parsePrefix(text) as Prefix, meaning]);

const DRIVER_OPTIONS: Readonly<
  Record<NetworkDriver, Readonly<Record<string, readonly string[] | undefined>>>
> = {
  overlay: {},
  bridge: {},
  macvlan: { parent: undefined, macvlan_mode: ['bridge', 'vepa', 'private', 'passthru'] },
  ipvlan: { parent: undefined, ipvlan_mode: ['l2', 'l3', 'l3s'] },
};

/** Throws `invalid-argument` on the first field that is wrong. */
export function validateNetworkSpec(spec: NetworkSpec): void {
  requireName('name', spec.name);
  if (isNodeNetwork(spec.name.toLowerCase()))
    throw invalidField('name', `"${spec.name}" is what each node has for itself: choose another one`);
  requireLabels('label', spec.labels);
  validateDriver(spec);
  validateOptions(spec);
  if (spec.ingress) validateIngress(spec);
  if (spec.configOnly) validateConfigOnly(spec);
  if (spec.configFrom !== '') validateConfigFrom(spec);
  validateMtu(spec);
  if (spec.vni > VNI_MAX) throw invalidField('opt', `vxlanid_list: ${spec.vni} must be from 1 to ${VNI_MAX}`);
  validateSubnets(spec);
  for (const rule of spec.policy?.allow ?? []) validateRule(rule);
}

function validateDriver(spec: NetworkSpec): void {
  const { driver } = spec;
  if (driver === 'overlay') {
    if (spec.configFrom !== '')
      throw invalidField('config-from', 'goes with the drivers bridge, macvlan and ipvlan');
    return;
  }
  const only = (field: string) => invalidField(field, `goes with the driver overlay, not with ${driver}`);
  if (spec.encrypted) throw only('encrypted');
  if (spec.vni !== 0) throw only('opt: vxlanid_list');
  if (spec.policy !== undefined) throw only('deny-by-default');
  if (spec.ingress) throw only('ingress');
  if (spec.configOnly || spec.configFrom !== '') return;
  if (driver === 'bridge')
    throw invalidField(
      'driver',
      'a bridge ends at its node: use overlay, or --config-from for one on each node',
    );
  if (spec.options['parent'] === undefined)
    throw invalidField('driver', `${driver} needs --opt parent=INTERFACE of the nodes, or --config-from`);
}

/** Which driver a config-only network will be for, those know that refer to it. */
function validateOptions({ driver, options, configOnly }: NetworkSpec): void {
  const known = configOnly ? Object.assign({}, ...Object.values(DRIVER_OPTIONS)) : DRIVER_OPTIONS[driver];
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, key)) {
      const names = Object.keys(known);
      const others = names.length === 0 ? 'it has none' : `known are ${names.join(' and ')}`;
      throw invalidField('opt', `"${key}" is unknown to the driver ${driver}; ${others}`);
    }
    const values = known[key];
    if (values === undefined ? value === '' : !values.includes(value))
      throw invalidField(
        'opt',
        `${key}: "${value}" must be ${values?.join(', ') ?? 'the name of an interface'}`,
      );
  }
}

function validateIngress(spec: NetworkSpec): void {
  const refuse = (field: string) => invalidField(field, 'the ingress network cannot have it');
  if (spec.internal) throw refuse('internal');
  if (spec.attachable) throw refuse('attachable');
  if (spec.configOnly) throw refuse('config-only');
  if (spec.policy !== undefined) throw refuse('deny-by-default');
}

/** It has what differs from node to node, and nothing that the network itself is. */
function validateConfigOnly(spec: NetworkSpec): void {
  const refuse = (field: string) => invalidField(field, 'a config-only network has options and subnets only');
  if (spec.internal) throw refuse('internal');
  if (spec.attachable) throw refuse('attachable');
  if (spec.encrypted) throw refuse('encrypted');
  if (spec.policy !== undefined) throw refuse('deny-by-default');
  if (spec.vni !== 0) throw refuse('opt: vxlanid_list');
  if (spec.configFrom !== '')
    throw invalidField('config-from', 'a config-only network has no other below it');
}

function validateConfigFrom(spec: NetworkSpec): void {
  requireName('config-from', spec.configFrom);
  const refuse = (field: string) => invalidField(field, `comes from ${spec.configFrom}: leave it out`);
  if (spec.subnets.length > 0) throw refuse('subnet');
  if (Object.keys(spec.options).length > 0) throw refuse('opt');
  if (spec.ipv6) throw refuse('ipv6');
  if (spec.mtu !== 0) throw refuse('mtu');
}

function validateMtu({ mtu, ipv6 }: NetworkSpec): void {
  requireWhole('mtu', mtu);
  const least = ipv6 ? MTU_MIN_IPV6 : MTU_MIN;
  if (mtu !== 0 && (mtu < least || mtu > MTU_MAX))
    throw invalidField(
      'mtu',
      `${mtu} must be from ${least} to ${MTU_MAX}, or 0 for what the nodes' path carries`,
    );
}

function validateRule({ from, to, port }: PolicyRule): void {
  for (const name of [from, to]) if (name !== '*') requireName('allow', name);
  if (port > 65_535) throw invalidField('allow', `port ${port} must be from 0 to 65535`);
}

function validateSubnets({ subnets, ipv6 }: NetworkSpec): void {
  const earlier: Prefix[] = [];
  for (const subnet of subnets) {
    const prefix = requirePrefix('subnet', subnet.subnet);
    if (prefix.family === 6 && !ipv6)
      throw invalidField('subnet', `${subnet.subnet} is of IPv6: turn that on with --ipv6`);
    if (addressBits(prefix.family) - prefix.length < HOST_BITS_MIN)
      throw invalidField('subnet', `${subnet.subnet} is too small: 8 addresses are the least`);
    const reserved = RESERVED.find(([range]) => overlaps(range, prefix));
    if (reserved !== undefined)
      throw invalidField(
        'subnet',
        `${subnet.subnet} has addresses of ${formatPrefix(reserved[0])}: ${reserved[1]}`,
      );
    const other = earlier.find((candidate) => overlaps(candidate, prefix));
    if (other !== undefined)
      throw invalidField(
        'subnet',
        `${subnet.subnet} overlaps with ${formatPrefix(other)} of the same network`,
      );
    earlier.push(prefix);
    validateAddressesOf(subnet, prefix);
  }
}

function validateAddressesOf({ subnet, ipRange, gateway, auxiliaryAddresses }: Subnet, prefix: Prefix): void {
  if (ipRange !== '' && !covers(prefix, requirePrefix('ip-range', ipRange)))
    throw invalidField('ip-range', `${ipRange} must be a part of the subnet ${subnet}`);
  const taken = new Map<bigint, string>();
  if (gateway !== '') taken.set(requireHost('gateway', gateway, prefix).value, 'the gateway');
  for (const [name, text] of Object.entries(auxiliaryAddresses)) {
    if (name.trim() === '') throw invalidField('aux-address', 'an address needs a name: NAME=ADDRESS');
    const { value } = requireHost('aux-address', text, prefix);
    const other = taken.get(value);
    if (other !== undefined) throw invalidField('aux-address', `${text} of ${name} is that of ${other}`);
    taken.set(value, name);
  }
}

/** Throws `invalid-argument` that says what was meant. */
function requirePrefix(field: string, text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix !== undefined) return prefix;
  const meant = parsePrefix(text, { dropsHostBits: true });
  throw invalidField(
    field,
    meant === undefined
      ? `"${text}" must be a network such as 10.0.1.0/24`
      : `"${text}" is an address in a network: ${formatPrefix(meant)} is meant`,
  );
}

/** An address that a host may have. */
function requireHost(field: string, text: string, prefix: Prefix): Address {
  const address = parseAddress(text);
  if (address === undefined) throw invalidField(field, `"${text}" must be an IP address`);
  if (!contains(prefix, address))
    throw invalidField(field, `${text} must be an address in the subnet ${formatPrefix(prefix)}`);
  if (!isHostAddress(prefix, address))
    throw invalidField(
      field,
      `${formatAddress(address)} is the first or last address of ${formatPrefix(prefix)}`,
    );
  return address;
}

/** False for the network itself and for IPv4's broadcast address. */
export function isHostAddress(prefix: Prefix, { family, value }: Address): boolean {
  return value !== prefix.base && (family === 6 || value !== lastAddress(prefix).value);
}
