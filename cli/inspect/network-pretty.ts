// `network inspect --pretty`: what the network is, and how full. Pure.

import type { Network } from '../../core/generated/objects.ts';
import type { GetNetworkResponse, NetworkUse } from '../../proto/generated/control.ts';
import { formatRule } from '../flags/policy.ts';
import { driverName } from './network-shape.ts';
import { formatTime } from './time.ts';

export function prettyNetwork({ network, use, services }: GetNetworkResponse): string {
  const { spec, meta, error } = network;
  const mtu = network.mtu || spec.mtu;
  const names = services.map((service) => service.spec.name).sort();
  const lines = [
    `ID:\t\t${network.id}`,
    `Name:\t\t${spec.name}`,
    ...Object.entries(spec.labels).map(
      ([key, value], index) => `${index === 0 ? 'Labels:\n' : ''} ${key}=${value}`,
    ),
    `Created:\t${formatTime(meta.createdAtMs)}`,
    `Driver:\t\t${driverName(spec)}`,
    ...(network.vni > 0 ? [`VNI:\t\t${network.vni}`] : []),
    ...(mtu > 0 ? [`MTU:\t\t${mtu}`] : []),
    ...(spec.configFrom === '' ? [] : [`Config From:\t${spec.configFrom}`]),
    ...optionLines(network),
    ...subnetLines(network),
    ...(use.capacity > 0 ? [`Addresses:\t${formatUse(use)}`] : []),
    ...policyLines(network),
    ...(names.length > 0 ? [`Services:\t${names.join(', ')}`] : []),
    ...(error === '' ? [] : [`Error:\t\t${error}`]),
  ];
  return `${lines.join('\n')}\n`;
}

/** "5 of 253 in use, 248 free (3 of tasks, 2 of services)" */
function formatUse({ taskAddresses, serviceAddresses, capacity }: NetworkUse): string {
  const used = taskAddresses + serviceAddresses;
  const free = Math.max(0, capacity - used);
  return `${used} of ${capacity} in use, ${free} free (${taskAddresses} of tasks, ${serviceAddresses} of services)`;
}

function optionLines({ spec }: Network): string[] {
  const traits = [
    spec.internal && 'internal',
    spec.attachable && 'attachable',
    spec.ingress && 'ingress',
    spec.encrypted && 'encrypted',
    spec.ipv6 && 'IPv6',
    spec.configOnly && 'config-only',
    ...Object.entries(spec.options).map(([key, value]) => `${key}=${value}`),
  ].filter((trait) => trait !== false);
  return traits.length === 0 ? [] : [`Options:\t${traits.join(', ')}`];
}

function subnetLines({ spec, subnets }: Network): string[] {
  const known = subnets.length > 0 ? subnets : spec.subnets;
  return known.flatMap(({ subnet, ipRange, gateway, auxiliaryAddresses }, index) => [
    ...(index === 0 ? ['Subnets:'] : []),
    ` ${subnet}${gateway === '' ? '' : `, gateway ${gateway}`}${ipRange === '' ? '' : `, range ${ipRange}`}`,
    ...Object.entries(auxiliaryAddresses).map(([name, address]) => `  ${name} is ${address}`),
  ]);
}

function policyLines({ spec: { policy } }: Network): string[] {
  if (policy === undefined) return [];
  return ['Policy:\t\tdeny by default', ...policy.allow.map((rule) => ` allow ${formatRule(rule)}`)];
}
