// Whether a network is as a network should be, and how it is laid out on this node.

import { invalidField, SwarmError } from '../../../core/errors.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { decodeAddress, listIpv4Addresses } from '../../linux/rtnetlink.ts';
import { formatIpv4, ipv4Number, type Prefix, parseIpv4, parsePrefix, prefixSize } from '../ipv4.ts';
import { linksOf } from '../wiring.ts';
import type { OverlayNetwork } from './overlay.ts';
import type { OverlayLayout } from './overlay-wiring.ts';

export interface NodeSide {
  readonly pinOf: (networkId: string) => string;
  readonly uplinkOf: (networkId: string) => string;
  readonly dataPathAddress: number;
  readonly dataPathPort: number;
  /** A socket of the host's namespace. */
  readonly routes: NetlinkSocket;
}

/** Outer Ethernet, IPv4, UDP and VXLAN headers, of which the underlay's MTU counts all but Ethernet's. */
const VXLAN_OVERHEAD = 50;
const VNI_MAX = 0xffffff;
const WEIGHT_MAX = 1000;
const NETWORK_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

export function planLayout(network: OverlayNetwork, node: NodeSide): OverlayLayout {
  checkNetworkId(network.id);
  if (!Number.isInteger(network.vni) || network.vni < 1 || network.vni > VNI_MAX) {
    throw invalidField('vni', `${network.vni} is not 1 to ${VNI_MAX}`);
  }
  const subnet = parsePrefix(network.subnet);
  const gateway = checkedAddress('gateway', network.gateway);
  if (gateway < subnet.base || gateway >= subnet.base + prefixSize(subnet.length)) {
    throw invalidField('gateway', `${network.gateway} is not in ${network.subnet}`);
  }
  const isIngress = network.isIngress === true;
  if (isIngress && network.isInternal) throw invalidField('isInternal', 'the ingress is not internal');
  return {
    namespacePath: node.pinOf(network.id),
    uplinkName: network.isInternal ? undefined : node.uplinkOf(network.id),
    isIngress,
    vni: network.vni,
    subnet,
    gateway,
    mtu: mtuOf(network, node),
    dataPathAddress: node.dataPathAddress,
    dataPathPort: node.dataPathPort,
  };
}

function mtuOf(network: OverlayNetwork, { routes, dataPathAddress }: NodeSide): number {
  const address = routes
    .dump(listIpv4Addresses)
    .map(({ body }) => decodeAddress(body))
    .find((candidate) => ipv4Number(candidate.address) === dataPathAddress);
  const link = linksOf(routes).find(({ index }) => index === address?.linkIndex);
  if (link === undefined) {
    const text = `dataPathAddress: no interface of this node has ${formatIpv4(dataPathAddress)}`;
    throw new SwarmError('failed-precondition', text, { hint: 'ip address shows those that there are.' });
  }
  const max = link.mtu - VXLAN_OVERHEAD;
  if (network.mtu !== undefined && network.mtu > max) {
    const text = `mtu: ${network.mtu} is more than interface ${link.name} carries for an overlay: ${max}`;
    throw new SwarmError('failed-precondition', text, {
      hint: `Give the network an MTU of at most ${max}, or ${link.name} one of ${network.mtu + VXLAN_OVERHEAD}.`,
    });
  }
  return network.mtu ?? max;
}

export function checkNetworkId(id: string): void {
  if (!NETWORK_ID_PATTERN.test(id)) throw invalidField('id', `"${id}" cannot name a network`);
}

export function checkedAddress(field: string, text: string): number {
  const address = parseIpv4(text);
  if (address === undefined) throw invalidField(field, `"${text}" is not an IPv4 address`);
  return address;
}

/** Neither the network's own addresses nor one outside. */
export function isHostAddress(address: number, layout: { subnet: Prefix; gateway: number }): boolean {
  const last = layout.subnet.base + prefixSize(layout.subnet.length) - 1;
  return address > layout.subnet.base && address < last && address !== layout.gateway;
}

export function checkWeight(field: string, weight: number): void {
  if (Number.isInteger(weight) && weight >= 1 && weight <= WEIGHT_MAX) return;
  throw invalidField(field, `${weight} is not 1 to ${WEIGHT_MAX}`);
}
