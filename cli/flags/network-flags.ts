// The flags of `network create` and `network update`: one table each. Adding a flag: here, then `network-spec.ts`.

import type { FlagTable } from './flag.ts';
import { countFlag, listFlag, switchFlag, textFlag, valueFlag, valuesFlag } from './flag.ts';
import { parseRule } from './policy.ts';
import { oneOf, parseBoolean } from './units.ts';
import { parseLabel, splitKeyValue } from './words.ts';

const DRIVERS = ['overlay', 'bridge', 'macvlan', 'ipvlan'] as const;

/** "a,b" is two, as in Docker. */
const commaListFlag = (help: string) => valuesFlag('list', (text) => text.split(','), help);

const allowHelp = 'Let a service open connections to another (FROM:TO[:PORT[/PROTOCOL]], * is any)';

export const createNetworkFlags = {
  driver: valueFlag('string', oneOf(...DRIVERS), `Driver to manage the network ("${DRIVERS.join('", "')}")`, {
    shorthand: 'd',
    defaultText: 'overlay',
    choices: DRIVERS,
  }),
  attachable: switchFlag('Containers that belong to no service may be part of it'),
  ingress: switchFlag('Create the network of the routing mesh'),
  internal: switchFlag('Restrict external access to the network'),
  scope: valueFlag('string', parseScope, 'The scope of the network ("swarm")', { defaultText: 'swarm' }),
  'config-only': switchFlag('Create a configuration that other networks refer to'),
  'config-from': textFlag('The network to copy the configuration from'),
  subnet: commaListFlag('Subnet in CIDR format, as in 10.0.1.0/24; without one the managers choose'),
  'ip-range': commaListFlag('Allocate addresses from a part of the subnet'),
  gateway: commaListFlag('Address of the gateway in the subnet'),
  'aux-address': valuesFlag('map', parseNamedAddress, 'Address that something else uses (NAME=ADDRESS)'),
  'ipam-driver': valueFlag('string', parseIpamDriver, 'IP Address Management driver ("default")', {
    defaultText: 'default',
  }),
  'ipam-opt': valuesFlag('map', refuseIpamOption, 'None: the default driver has no options'),
  ipv4: {
    ...switchFlag('IPv4 addresses: every network has them', { defaultText: 'true' }),
    parse: parseIpv4,
  },
  ipv6: switchFlag('Enable IPv6 addresses as well'),
  label: valuesFlag('list', parseLabel, 'Set metadata on a network'),
  opt: valuesFlag('map', parseOption, 'Set driver specific options (encrypted, mtu=N, parent=INTERFACE, …)', {
    shorthand: 'o',
  }),
  encrypted: switchFlag('Encrypt what goes from node to node'),
  mtu: countFlag('MTU of the network', { defaultText: "what the nodes' path carries" }),
  'deny-by-default': switchFlag('Refuse connections that no --allow names'),
  allow: valuesFlag('rule', parseRule, `${allowHelp}; refuses all others`),
} satisfies FlagTable;

export const updateNetworkFlags = {
  'label-add': valuesFlag('list', parseLabel, 'Add or update a network label (key=value)'),
  'label-rm': listFlag('Remove a network label by its key'),
  'subnet-add': commaListFlag('Add a subnet, or widen the one that it covers'),
  'allow-add': valuesFlag('rule', parseRule, allowHelp),
  'allow-rm': valuesFlag('rule', parseRule, 'Remove what was allowed'),
  'deny-by-default': switchFlag('Refuse connections that nothing allows; =false lets everybody talk again'),
} satisfies FlagTable;

function parseScope(text: string): 'swarm' {
  if (text === 'local')
    throw new Error('scope "local" is not supported yet: networks are of the whole swarm');
  return oneOf('swarm')(text);
}

function parseIpamDriver(text: string): 'default' {
  if (text !== 'default') throw new Error('must be "default": there is no other driver');
  return text;
}

function refuseIpamOption(): never {
  throw new Error('the default IPAM driver has no options');
}

function parseIpv4(text: string): true {
  if (!parseBoolean(text)) throw new Error('must be true: every network has IPv4 addresses');
  return true;
}

function parseNamedAddress(text: string): readonly [string, string] {
  const { key, value } = splitKeyValue(text);
  if (key === '' || value === undefined) throw new Error('must be NAME=ADDRESS');
  return [key, value];
}

/** "KEY" alone is a switch that is on. */
function parseOption(text: string): readonly [string, string] {
  const { key, value = '' } = splitKeyValue(text);
  if (key === '') throw new Error('must be NAME=VALUE');
  return [key, value];
}
