// VXLAN links, and which machine is behind which MAC address.

import {
  type Attribute,
  decodeAttributes,
  encodeAttributes,
  type NetlinkMessage,
  netlinkFlags,
  text,
  textOf,
  uint8,
  uint16BigEndian,
  uint32,
} from './netlink.ts';
import {
  INFO_DATA,
  INFO_KIND,
  linkAttributes,
  linkHeader,
  messageTypes,
  NEIGHBOUR_PERMANENT,
} from './rtnetlink.ts';

const VXLAN = 'vxlan';
const vxlanAttributes = { id: 1, localAddress: 4, learning: 7, port: 15 } as const;

const AF_BRIDGE = 7;
/** The entry belongs to the link itself, not to a bridge above it. */
const NEIGHBOUR_OF_LINK = 2;
const ENTRY_DESTINATION = 1;
const ENTRY_MAC_ADDRESS = 2;

export interface VxlanOptions {
  readonly name: string;
  readonly index: number;
  /** The VXLAN network identifier: 24 bits. */
  readonly id: number;
  readonly localAddress: Buffer;
  readonly port: number;
  readonly macAddress: Buffer;
  readonly mtu: number;
  /** Where the link goes. Its packets use the namespace in which it was made. */
  readonly namespaceFd: number;
}

/** EEXIST while the namespace in which it is made has a VXLAN of this id and port, wherever that has been moved. */
export function createVxlan(options: VxlanOptions): NetlinkMessage {
  const data: Attribute[] = [
    [vxlanAttributes.id, uint32(options.id)],
    [vxlanAttributes.localAddress, options.localAddress],
    [vxlanAttributes.learning, uint8(0)],
    [vxlanAttributes.port, uint16BigEndian(options.port)],
  ];
  return {
    what: `create VXLAN ${options.id}`,
    type: messageTypes.newLink,
    flags: netlinkFlags.create | netlinkFlags.exclusive,
    body: Buffer.concat([
      linkHeader(options.index),
      encodeAttributes([
        [linkAttributes.name, text(options.name)],
        [linkAttributes.mtu, uint32(options.mtu)],
        [linkAttributes.hardwareAddress, options.macAddress],
        [linkAttributes.namespaceFd, uint32(options.namespaceFd)],
        [
          linkAttributes.info,
          [
            [INFO_KIND, text(VXLAN)],
            [INFO_DATA, data],
          ],
        ],
      ]),
    ]),
  };
}

export interface Vxlan {
  readonly id: number;
  readonly localAddress: Buffer;
  readonly port: number;
}

/** undefined for links of another kind. */
export function decodeVxlan(body: Buffer): Vxlan | undefined {
  const info = decodeAttributes(decodeAttributes(body, 16).get(linkAttributes.info) ?? Buffer.alloc(0));
  if (textOf(info.get(INFO_KIND) ?? Buffer.alloc(0)) !== VXLAN) return undefined;
  const data = decodeAttributes(info.get(INFO_DATA) ?? Buffer.alloc(0));
  return {
    id: data.get(vxlanAttributes.id)?.readUInt32LE() ?? 0,
    localAddress: data.get(vxlanAttributes.localAddress) ?? Buffer.alloc(4),
    port: data.get(vxlanAttributes.port)?.readUInt16BE() ?? 0,
  };
}

export interface ForwardingEntry {
  readonly linkIndex: number;
  readonly macAddress: Buffer;
  /** The machine behind it. */
  readonly destination: Buffer;
}

/** Replaces the entry of the MAC address. */
export function addForwardingEntry(entry: ForwardingEntry): NetlinkMessage {
  return forwardingMessage('add', entry);
}

/** ENOENT when there is none. */
export function deleteForwardingEntry(entry: ForwardingEntry): NetlinkMessage {
  return forwardingMessage('delete', entry);
}

export const listForwardingEntries: NetlinkMessage = {
  what: 'list forwarding entries',
  type: messageTypes.getNeighbour,
  flags: 0,
  body: Buffer.from([AF_BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
};

export function decodeForwardingEntry(body: Buffer): ForwardingEntry {
  const attributes = decodeAttributes(body, 12);
  return {
    linkIndex: body.readInt32LE(4),
    macAddress: attributes.get(ENTRY_MAC_ADDRESS) ?? Buffer.alloc(6),
    destination: attributes.get(ENTRY_DESTINATION) ?? Buffer.alloc(4),
  };
}

function forwardingMessage(action: 'add' | 'delete', entry: ForwardingEntry): NetlinkMessage {
  const header = Buffer.alloc(12);
  header[0] = AF_BRIDGE;
  header.writeInt32LE(entry.linkIndex, 4);
  header.writeUInt16LE(NEIGHBOUR_PERMANENT, 8);
  header[10] = NEIGHBOUR_OF_LINK;
  return {
    what: `${action} forwarding entry on link ${entry.linkIndex}`,
    type: action === 'add' ? messageTypes.newNeighbour : messageTypes.deleteNeighbour,
    flags: action === 'add' ? netlinkFlags.create | netlinkFlags.replace : 0,
    body: Buffer.concat([
      header,
      encodeAttributes([
        [ENTRY_DESTINATION, entry.destination],
        [ENTRY_MAC_ADDRESS, entry.macAddress],
      ]),
    ]),
  };
}
