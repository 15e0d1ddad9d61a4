// What makes the networks and published ports of a service acceptable, as far as its spec alone can tell: whether a
// network is there, and what others have, only the managers know.

import { invalidField } from './errors.ts';
import type { EndpointSpec, NetworkAttachment, PortConfig } from './generated/objects.ts';
import { parseAddress } from './ip-address.ts';
import { requireName } from './validate-fields.ts';

/** What each node has for itself; no network of the cluster has such a name. */
const NODE_NETWORKS: readonly string[] = ['host', 'none', 'bridge'];
// Linux's IFNAMSIZ leaves so many characters.
const INTERFACE_PATTERN = /^[^\s/:]{1,15}$/;
const PORT_MAX = 65_535;
const DRAIN_MS_MAX = 24 * 3_600_000;

/** True of what needs no network of the cluster. */
export function isNodeNetwork(target: string): boolean {
  return NODE_NETWORKS.includes(target);
}

/** Throws `invalid-argument` on the first field that is wrong. */
export function validateNetworks(networks: readonly NetworkAttachment[], { mode }: EndpointSpec): void {
  const seen = new Set<string>();
  for (const { networkId: target, aliases, virtualAddresses, options } of networks) {
    if (target === '') throw invalidField('network', 'must be the name or id of a network');
    if (seen.has(target)) throw invalidField('network', `"${target}" is used twice`);
    seen.add(target);
    if ((target === 'host' || target === 'none') && networks.length > 1)
      throw invalidField('network', `"${target}" goes with no other network`);
    if (isNodeNetwork(target) && aliases.length + virtualAddresses.length + Object.keys(options).length > 0)
      throw invalidField(
        'network',
        `"${target}" is each node's own: it has no aliases, addresses or options`,
      );
    for (const alias of aliases) requireName('network: alias', alias);
    validateVirtualAddresses(virtualAddresses);
    if (virtualAddresses.length > 0 && mode === 'dnsrr')
      throw invalidField('network: vip', 'a service with endpoint-mode dnsrr has none');
  }
}

function validateVirtualAddresses(addresses: readonly string[]): void {
  const families = new Set<number>();
  for (const text of addresses) {
    const address = parseAddress(text);
    if (address === undefined) throw invalidField('network: vip', `"${text}" must be an IP address`);
    if (families.has(address.family))
      throw invalidField('network: vip', `a service has one address of IPv${address.family} in a network`);
    families.add(address.family);
  }
}

/** Throws `invalid-argument` on the first field that is wrong. */
export function validateEndpoint({ ports, mode, affinity, weightLabel, drainMs }: EndpointSpec): void {
  if (drainMs < 0 || drainMs > DRAIN_MS_MAX)
    throw invalidField('drain-time', `${drainMs} ms must be from 0s to ${DRAIN_MS_MAX / 3_600_000}h`);
  for (const [index, port] of ports.entries()) {
    validatePort(port);
    if (mode === 'dnsrr' && port.publishMode === 'ingress')
      throw invalidField(
        'publish',
        `port ${port.targetPort} cannot be published in ingress mode with endpoint-mode dnsrr; use mode=host`,
      );
    const earlier = ports.slice(0, index).some((other) => isSamePort(port, other));
    if (earlier)
      throw invalidField('publish', `port ${port.publishedPort}/${port.protocol} is published twice`);
  }
  if (affinity !== 'none' && mode === 'dnsrr')
    throw invalidField('affinity', 'goes with endpoint-mode vip: clients of dnsrr choose for themselves');
  if (weightLabel === '') return;
  if (/[\s=]/.test(weightLabel))
    throw invalidField('weight-label', `"${weightLabel}" must be the name of a node's label`);
  if (mode === 'dnsrr')
    throw invalidField('weight-label', 'goes with endpoint-mode vip: clients of dnsrr choose for themselves');
}

function validatePort(port: PortConfig): void {
  const { targetPort, publishedPort, hostAddress, hostInterface, locality } = port;
  if (targetPort < 1 || targetPort > PORT_MAX)
    throw invalidField('publish', `target port ${targetPort} must be from 1 to ${PORT_MAX}`);
  if (publishedPort > PORT_MAX)
    throw invalidField('publish', `published port ${publishedPort} must be from 0 to ${PORT_MAX}`);
  if (hostAddress !== '') requireHostAddress(hostAddress);
  if (hostInterface !== '' && !INTERFACE_PATTERN.test(hostInterface))
    throw invalidField('publish', `interface "${hostInterface}" must be the name of a network interface`);
  if (hostAddress !== '' && hostInterface !== '')
    throw invalidField('publish', 'address and interface do not go together: use one of them');
  if (locality !== 'any' && port.publishMode === 'host')
    throw invalidField('publish', `local=${locality} goes with mode=ingress: mode=host is always local`);
}

function requireHostAddress(text: string): void {
  const address = parseAddress(text);
  if (address === undefined) throw invalidField('publish', `address "${text}" must be an IP address`);
  if (address.value === 0n) throw invalidField('publish', `address ${text} is every address: leave it out`);
}

/** Both want one port of the same nodes. A port that is still to be chosen collides with none. */
export function isSamePort(a: PortConfig, b: PortConfig): boolean {
  return (
    a.publishedPort === b.publishedPort &&
    a.publishedPort !== 0 &&
    a.protocol === b.protocol &&
    areSamePlace(a, b)
  );
}

/** Nobody knows which addresses an interface has on all nodes: only two of them, or two addresses, can be told apart. */
function areSamePlace(a: PortConfig, b: PortConfig): boolean {
  if (a.hostAddress !== '' && b.hostAddress !== '') return addressKey(a) === addressKey(b);
  if (a.hostInterface !== '' && b.hostInterface !== '') return a.hostInterface === b.hostInterface;
  return true;
}

function addressKey({ hostAddress }: PortConfig): string {
  const address = parseAddress(hostAddress);
  return address === undefined ? hostAddress : `${address.family} ${address.value}`;
}
