// What a network's namespace has to know of another node: one forwarding entry of the VXLAN, and a neighbour for each
// family of the network. All of it follows from the node's IPv4 address.

import type { IpFamily } from '../../linux/ip-family.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import { addPermanentNeighbour } from '../../linux/rtnetlink.ts';
import { addForwardingEntry, type ForwardingEntry } from '../../linux/vxlan.ts';
import { bytesOf } from '../ip-bytes.ts';

export const VXLAN_INDEX = 100;
/** Of a node's next hop for IPv6: fe80::5 and its IPv4 address. */
const IPV6_HOP_PREFIX = Buffer.from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);

/** Who answers of the routing mesh are routed to, before they get their node's MAC address: "IPv4 dummy address" (RFC 7600). */
export const RETURN_HOP = Buffer.from([192, 0, 0, 8]);

/** The MAC address of a node's VXLAN links. Nobody needs to tell it: it follows from the address. */
export function nodeMac(address: Buffer): Buffer {
  return Buffer.concat([Buffer.from([0x02, 0x54]), address]);
}

/** What routes to a node's containers name as their gateway. */
export function nodeHop(nodeAddress: Buffer, family: IpFamily): Buffer {
  return family === 'ipv4' ? nodeAddress : Buffer.concat([IPV6_HOP_PREFIX, nodeAddress]);
}

/** The IPv4 address of the node of a next hop. */
export function nodeOfHop(hop: Buffer): Buffer {
  return hop.subarray(-4);
}

export function nodeMessages(address: string, families: readonly IpFamily[]): NetlinkMessage[] {
  const entry = forwardingEntryOf(address);
  const { linkIndex, macAddress, destination } = entry;
  return [
    ...families.map((family) =>
      addPermanentNeighbour({ linkIndex, address: nodeHop(destination, family), macAddress }),
    ),
    addForwardingEntry(entry),
  ];
}

export function forwardingEntryOf(nodeAddress: string): ForwardingEntry {
  const destination = bytesOf(nodeAddress);
  return { linkIndex: VXLAN_INDEX, macAddress: nodeMac(destination), destination };
}
