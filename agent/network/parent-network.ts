// Networks whose containers are hosts of the node's own network, by an interface of the node: macvlan and ipvlan. There
// is nothing to distribute: whoever is on that network answers for itself. A container's link goes with its namespace.

import { closeSync, openSync } from 'node:fs';
import { SwarmError } from '../../core/errors.ts';
import type { Network } from '../../core/generated/objects.ts';
import { SystemCallError } from '../linux/libc.ts';
import { withinNamespace } from '../linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../linux/netlink-socket.ts';
import { createParentLink, ipvlanModes, macvlanModes } from '../linux/parent-links.ts';
import { addAddress, addRoute, decodeAddress, listAddresses, setLinkUp } from '../linux/rtnetlink.ts';
import { ipv4Bytes, parseIpv4, parsePrefix } from './ipv4.ts';
import { containerMac, FIRST_CONTAINER_INDEX, freeLinkNumber, linksOf, NO_ADDRESS } from './wiring.ts';

export interface ParentEndpoint {
  /** Its driver is macvlan or ipvlan; its options are complete. */
  readonly network: Network;
  readonly address: string;
  readonly namespacePath: string;
  readonly isDefaultRoute: boolean;
}

const EOPNOTSUPP = 95;

/**
 * Gives the container a link to the network; one that has it already is left alone. Throws `failed-precondition` when the node
 * has no such interface, or its kernel no such links.
 */
export function attachToParent({ network, address, namespacePath, isDefaultRoute }: ParentEndpoint): void {
  const kind = network.spec.driver === 'ipvlan' ? 'ipvlan' : 'macvlan';
  const bytes = ipv4Bytes(parseIpv4(address) ?? 0);
  const subnet = network.subnets.find(({ gateway }) => parseIpv4(gateway) !== undefined);
  using hostRoutes = new NetlinkSocket(netlinkProtocols.route);
  using routes = withinNamespace(namespacePath, () => new NetlinkSocket(netlinkProtocols.route));
  const isThere = routes
    .dump(listAddresses('ipv4'))
    .some(({ body }) => decodeAddress(body).address.equals(bytes));
  if (isThere) return;
  const number = freeLinkNumber(linksOf(routes));
  const linkIndex = FIRST_CONTAINER_INDEX + number;
  const namespaceFd = openSync(namespacePath, 'r');
  try {
    hostRoutes.execute([
      createParentLink({
        kind,
        mode: modeOf(network),
        parentIndex: parentOf(hostRoutes, network),
        name: `eth${number}`,
        index: linkIndex,
        namespaceFd,
        ...(kind === 'macvlan' && { macAddress: containerMac(bytes) }),
      }),
    ]);
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errno !== EOPNOTSUPP) throw error;
    throw new SwarmError(
      'failed-precondition',
      `network ${network.spec.name}: the kernel of this node has no ${kind}`,
      {
        hint: `Keep the service on nodes that have it, or load the module: modprobe ${kind}.`,
        cause: error,
      },
    );
  } finally {
    closeSync(namespaceFd);
  }
  routes.execute([
    addAddress({
      linkIndex,
      address: bytes,
      prefixLength: parsePrefix(subnet?.subnet ?? '0.0.0.0/0').length,
    }),
    setLinkUp(linkIndex, true),
  ]);
  if (!isDefaultRoute || network.spec.internal || subnet === undefined) return;
  const gateway = ipv4Bytes(parseIpv4(subnet.gateway) ?? 0);
  routes.execute([addRoute({ linkIndex, destination: NO_ADDRESS, prefixLength: 0, gateway })]);
}

function modeOf({ spec }: Network): number {
  const modes: Readonly<Record<string, number>> = spec.driver === 'ipvlan' ? ipvlanModes : macvlanModes;
  const asked = spec.options[spec.driver === 'ipvlan' ? 'ipvlan_mode' : 'macvlan_mode'] ?? '';
  return modes[asked] ?? (spec.driver === 'ipvlan' ? ipvlanModes.l2 : macvlanModes.bridge);
}

function parentOf(hostRoutes: NetlinkSocket, { spec }: Network): number {
  const { parent = '' } = spec.options;
  const links = linksOf(hostRoutes);
  const link = links.find(({ name }) => name === parent);
  if (link !== undefined) return link.index;
  throw new SwarmError(
    'failed-precondition',
    `network ${spec.name}: this node has no interface "${parent}" (parent); it has ${links.map(({ name }) => name).join(', ')}`,
  );
}
