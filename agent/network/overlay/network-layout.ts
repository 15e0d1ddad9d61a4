// Whether a network is as a network should be, and how it is laid out on this node.

import { invalidField, SwarmError } from '../../../core/errors.ts';
import { contains, lastAddress, overlaps, parseAddress, parsePrefix } from '../../../core/ip-address.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { decodeAddress, listAddresses } from '../../linux/rtnetlink.ts';
import { formatIpv4, ipv4Number, parseIpv4 } from '../ipv4.ts';
import { isIpv6InKernel } from '../ipv6-link.ts';
import { linksOf } from '../wiring.ts';
import type { OverlayNetwork, OverlaySubnet } from './overlay.ts';
import {
  familiesOf,
  familyOfSubnet,
  type LayoutSubnet,
  type OverlayLayout,
  subnetWith,
} from './overlay-layout.ts';

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
/** RFC 8200. */
const IPV6_MTU_MIN = 1280;
const VNI_MAX = 0xffffff;
const WEIGHT_MAX = 1000;
const NETWORK_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

export function planLayout(network: OverlayNetwork, node: NodeSide): OverlayLayout {
  checkNetworkId(network.id);
  if (!Number.isInteger(network.vni) || network.vni < 1 || network.vni > VNI_MAX) {
    throw invalidField('vni', `${network.vni} is not 1 to ${VNI_MAX}`);
  }
  const subnets = planSubnets(network);
  const isIngress = network.isIngress === true;
  if (isIngress && network.isInternal) throw invalidField('isInternal', 'the ingress is not internal');
  return {
    namespacePath: node.pinOf(network.id),
    uplinkName: network.isInternal ? undefined : node.uplinkOf(network.id),
    isIngress,
    vni: network.vni,
    subnets,
    mtu: mtuOf(network, node),
    dataPathAddress: node.dataPathAddress,
    dataPathPort: node.dataPathPort,
  };
}

function planSubnets(network: OverlayNetwork): LayoutSubnet[] {
  const subnets = network.subnets.map(planSubnet);
  for (const [index, { prefix }] of subnets.entries()) {
    if (!subnets.slice(0, index).some((other) => overlaps(other.prefix, prefix))) continue;
    throw invalidField('subnets', `${network.subnets[index]?.subnet} overlaps with another one`);
  }
  if (!subnets.some((subnet) => familyOfSubnet(subnet) === 'ipv4')) {
    throw invalidField('subnets', `network ${network.id} has none of IPv4`);
  }
  if (familiesOf({ subnets }).includes('ipv6')) checkIpv6(network);
  return subnets;
}

function planSubnet({ subnet, gateway }: OverlaySubnet): LayoutSubnet {
  const prefix = parsePrefix(subnet);
  if (prefix === undefined) throw invalidField('subnet', `"${subnet}" is no network such as 10.0.1.0/24`);
  const address = parseAddress(gateway);
  if (address === undefined) throw invalidField('gateway', `"${gateway}" is no address`);
  if (!contains(prefix, address)) throw invalidField('gateway', `${gateway} is not in ${subnet}`);
  return { prefix, gateway };
}

function checkIpv6({ id, mtu = IPV6_MTU_MIN }: OverlayNetwork): void {
  if (mtu < IPV6_MTU_MIN) throw invalidField('mtu', `${mtu} is less than IPv6 needs: ${IPV6_MTU_MIN}`);
  if (isIpv6InKernel()) return;
  throw new SwarmError(
    'failed-precondition',
    `network ${id} has IPv6, and the kernel of this node runs without`,
    {
      hint: 'Start the kernel without ipv6.disable=1, or keep services of this network on other nodes.',
    },
  );
}

function mtuOf(network: OverlayNetwork, { routes, dataPathAddress }: NodeSide): number {
  const address = routes
    .dump(listAddresses('ipv4'))
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

/** Neither a subnet's own addresses nor one outside of all. */
export function isHostAddress(address: string, subnets: readonly LayoutSubnet[]): boolean {
  const parsed = parseAddress(address);
  const subnet = subnetWith(subnets, address);
  if (parsed === undefined || subnet === undefined || address === subnet.gateway) return false;
  const { prefix } = subnet;
  const isLast = prefix.family === 4 && parsed.value === lastAddress(prefix).value;
  return parsed.value !== prefix.base && !isLast;
}

export function checkWeight(field: string, weight: number): void {
  if (Number.isInteger(weight) && weight >= 1 && weight <= WEIGHT_MAX) return;
  throw invalidField(field, `${weight} is not 1 to ${WEIGHT_MAX}`);
}
