// Links, addresses, routes and neighbours. Addresses are 4 or 16 bytes and tell the family by their length.

import { familyOfBytes, type IpFamily, ipFamilies } from './ip-family.ts';
import {
  type Attribute,
  decodeAttributes,
  encodeAttributes,
  type NetlinkMessage,
  netlinkFlags,
  text,
  textOf,
  uint8,
  uint32,
} from './netlink.ts';

export const messageTypes = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  deleteNeighbour: 29,
  getNeighbour: 30,
} as const;

export const linkAttributes = {
  hardwareAddress: 1,
  name: 3,
  mtu: 4,
  info: 18,
  alias: 20,
  addressFamilies: 26,
  namespaceFd: 28,
} as const;
export const INFO_KIND = 1;
export const INFO_DATA = 2;
const VETH_PEER = 1;
const INET6_ADDRESS_GENERATION = 8;
const ADDRESS_GENERATION_NONE = 1;
const INET_CONFIGURATION = 1;
const INET_ROUTE_LOCALNET = 26;
const LINK_UP = 1;

const routeAttributes = { destination: 1, link: 4, gateway: 5, metric: 6, table: 15 } as const;
const ROUTE_ONLINK = 4;
/** The routing table that a packet is looked up in when no rule says otherwise. */
export const MAIN_TABLE = 254;
const ROUTE_PROTOCOL_STATIC = 4;
const routeTypes = { unicast: 1, unreachable: 7 } as const;

const addressAttributes = { address: 1, local: 2, flags: 8 } as const;
const ADDRESS_WITHOUT_PREFIX_ROUTE = 0x200;
/** IPv6 asks whether somebody else has an address before it is used, unless told not to. */
const ADDRESS_WITHOUT_DETECTION = 0x02;

export const NEIGHBOUR_PERMANENT = 0x80;
const { number: AF_INET } = ipFamilies.ipv4;
const { number: AF_INET6 } = ipFamilies.ipv6;

export interface VethEnd {
  readonly name: string;
  /** Chosen by the kernel when absent. */
  readonly index?: number;
  readonly macAddress?: Buffer;
}

export interface VethOptions extends VethEnd {
  readonly mtu: number;
  /** A free text that `ip link` shows. */
  readonly alias?: string;
  readonly peer: VethEnd & { readonly namespaceFd: number };
}

export function linkHeader(index: number, flags = 0, changed = 0): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(changed, 12);
  return header;
}

function vethEndAttributes(end: VethEnd, mtu: number): Attribute[] {
  const attributes: Attribute[] = [
    [linkAttributes.name, text(end.name)],
    [linkAttributes.mtu, uint32(mtu)],
  ];
  if (end.macAddress !== undefined) attributes.push([linkAttributes.hardwareAddress, end.macAddress]);
  return attributes;
}

/** Both ends are down afterwards: a veth cannot be made and set up in one message (ENOTCONN). */
export function createVeth(options: VethOptions): NetlinkMessage {
  const peer = Buffer.concat([
    linkHeader(options.peer.index ?? 0),
    encodeAttributes([
      ...vethEndAttributes(options.peer, options.mtu),
      [linkAttributes.namespaceFd, uint32(options.peer.namespaceFd)],
    ]),
  ]);
  const attributes: Attribute[] = [
    ...vethEndAttributes(options, options.mtu),
    [
      linkAttributes.info,
      [
        [INFO_KIND, text('veth')],
        [INFO_DATA, [[VETH_PEER, peer]]],
      ],
    ],
  ];
  if (options.alias !== undefined) attributes.push([linkAttributes.alias, Buffer.from(options.alias)]);
  return {
    what: `create link ${options.name}`,
    type: messageTypes.newLink,
    flags: netlinkFlags.create | netlinkFlags.exclusive,
    body: Buffer.concat([linkHeader(options.index ?? 0), encodeAttributes(attributes)]),
  };
}

export function setLinkUp(index: number, up: boolean): NetlinkMessage {
  return {
    what: `set link ${index} ${up ? 'up' : 'down'}`,
    type: messageTypes.newLink,
    flags: 0,
    body: linkHeader(index, up ? LINK_UP : 0, LINK_UP),
  };
}

/** Keeps the kernel from giving the link an IPv6 address by itself and announcing it. */
export function disableLinkLocalAddress(index: number): NetlinkMessage {
  const generation: Attribute = [INET6_ADDRESS_GENERATION, uint8(ADDRESS_GENERATION_NONE)];
  return {
    what: `disable link-local address of link ${index}`,
    type: messageTypes.newLink,
    flags: 0,
    body: Buffer.concat([
      linkHeader(index),
      encodeAttributes([[linkAttributes.addressFamilies, [[AF_INET6, [generation]]]]]),
    ]),
  };
}

/** A free text that `ip link` shows; at most 255 bytes. */
export function setLinkAlias(index: number, alias: string): NetlinkMessage {
  return {
    what: `name link ${index} "${alias}"`,
    type: messageTypes.newLink,
    flags: 0,
    body: Buffer.concat([linkHeader(index), encodeAttributes([[linkAttributes.alias, Buffer.from(alias)]])]),
  };
}

/** Lets packets that an address translation sends from or to 127.0.0.0/8 leave and enter by the link. */
export function routeLoopbackAddresses(index: number): NetlinkMessage {
  const setting: Attribute = [INET_CONFIGURATION, [[INET_ROUTE_LOCALNET, uint32(1)]]];
  return {
    what: `route loopback addresses on link ${index}`,
    type: messageTypes.newLink,
    flags: 0,
    body: Buffer.concat([
      linkHeader(index),
      encodeAttributes([[linkAttributes.addressFamilies, [[AF_INET, [setting]]]]]),
    ]),
  };
}

export function deleteLink(name: string): NetlinkMessage {
  return {
    what: `delete link ${name}`,
    type: messageTypes.deleteLink,
    flags: 0,
    body: Buffer.concat([linkHeader(0), encodeAttributes([[linkAttributes.name, text(name)]])]),
  };
}

export interface AddressOptions {
  readonly linkIndex: number;
  readonly address: Buffer;
  readonly prefixLength: number;
  /** Leaves the routes to the caller. */
  readonly withoutPrefixRoute?: boolean;
}

export function addAddress(options: AddressOptions): NetlinkMessage {
  const header = Buffer.alloc(8);
  header[0] = numberOf(options.address);
  header[1] = options.prefixLength;
  header.writeUInt32LE(options.linkIndex, 4);
  const attributes: Attribute[] = [
    [addressAttributes.local, options.address],
    [addressAttributes.address, options.address],
  ];
  const flags =
    (options.withoutPrefixRoute === true ? ADDRESS_WITHOUT_PREFIX_ROUTE : 0) |
    (familyOfBytes(options.address) === 'ipv6' ? ADDRESS_WITHOUT_DETECTION : 0);
  if (flags !== 0) attributes.push([addressAttributes.flags, uint32(flags)]);
  return {
    what: `add address to link ${options.linkIndex}`,
    type: messageTypes.newAddress,
    flags: netlinkFlags.create | netlinkFlags.replace,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

export interface RouteOptions {
  readonly type?: keyof typeof routeTypes;
  readonly destination: Buffer;
  /** 0 with an all-zero destination is the default route. */
  readonly prefixLength: number;
  readonly linkIndex?: number;
  readonly gateway?: Buffer;
  /** The gateway is on the link although no route says so. */
  readonly onlink?: boolean;
  readonly metric?: number;
  /** The main one when absent. */
  readonly table?: number;
}

const SCOPE_UNIVERSE = 0;
const SCOPE_LINK = 253;
/** In a request to delete. */
const SCOPE_ANY = 255;

/** Replaces a route with the same destination and metric. */
export function addRoute(options: RouteOptions): NetlinkMessage {
  const isDirect = options.linkIndex !== undefined && options.gateway === undefined;
  const header = Buffer.alloc(12);
  header[0] = numberOf(options.destination);
  header[1] = options.prefixLength;
  header[4] = options.table === undefined ? MAIN_TABLE : 0;
  header[5] = ROUTE_PROTOCOL_STATIC;
  header[6] = isDirect ? SCOPE_LINK : SCOPE_UNIVERSE;
  header[7] = routeTypes[options.type ?? 'unicast'];
  header.writeUInt32LE(options.onlink === true ? ROUTE_ONLINK : 0, 8);
  const attributes: Attribute[] = [];
  if (options.prefixLength > 0) attributes.push([routeAttributes.destination, options.destination]);
  if (options.linkIndex !== undefined) attributes.push([routeAttributes.link, uint32(options.linkIndex)]);
  if (options.gateway !== undefined) attributes.push([routeAttributes.gateway, options.gateway]);
  if (options.metric !== undefined) attributes.push([routeAttributes.metric, uint32(options.metric)]);
  if (options.table !== undefined) attributes.push([routeAttributes.table, uint32(options.table)]);
  return {
    what: `add route to ${[...options.destination].join('.')}/${options.prefixLength}`,
    type: messageTypes.newRoute,
    flags: netlinkFlags.create | netlinkFlags.replace,
    body: Buffer.concat([header, encodeAttributes(attributes)]),
  };
}

/** ESRCH when there is none. */
export function deleteRoute(destination: Buffer, prefixLength: number): NetlinkMessage {
  const header = Buffer.alloc(12);
  header[0] = numberOf(destination);
  header[1] = prefixLength;
  header[4] = MAIN_TABLE;
  header[6] = SCOPE_ANY;
  return {
    what: `delete route to ${[...destination].join('.')}/${prefixLength}`,
    type: messageTypes.deleteRoute,
    flags: 0,
    body: Buffer.concat([header, encodeAttributes([[routeAttributes.destination, destination]])]),
  };
}

export interface NeighbourOptions {
  readonly linkIndex: number;
  readonly address: Buffer;
  readonly macAddress: Buffer;
}

const NEIGHBOUR_ADDRESS = 1;
const NEIGHBOUR_HARDWARE_ADDRESS = 2;

/** A neighbour that is never asked for and never forgotten. */
export function addPermanentNeighbour(options: NeighbourOptions): NetlinkMessage {
  return {
    what: `add neighbour on link ${options.linkIndex}`,
    type: messageTypes.newNeighbour,
    flags: netlinkFlags.create | netlinkFlags.replace,
    body: Buffer.concat([
      neighbourHeader(options.linkIndex, options.address, NEIGHBOUR_PERMANENT),
      encodeAttributes([
        [NEIGHBOUR_ADDRESS, options.address],
        [NEIGHBOUR_HARDWARE_ADDRESS, options.macAddress],
      ]),
    ]),
  };
}

/** ENOENT when there is none. */
export function deleteNeighbour(linkIndex: number, address: Buffer): NetlinkMessage {
  return {
    what: `delete neighbour on link ${linkIndex}`,
    type: messageTypes.deleteNeighbour,
    flags: 0,
    body: Buffer.concat([
      neighbourHeader(linkIndex, address, 0),
      encodeAttributes([[NEIGHBOUR_ADDRESS, address]]),
    ]),
  };
}

function neighbourHeader(linkIndex: number, address: Buffer, state: number): Buffer {
  const header = Buffer.alloc(12);
  header[0] = numberOf(address);
  header.writeInt32LE(linkIndex, 4);
  header.writeUInt16LE(state, 8);
  return header;
}

export function listNeighbours(family: IpFamily): NetlinkMessage {
  const body = Buffer.alloc(12);
  body[0] = ipFamilies[family].number;
  return { what: 'list neighbours', type: messageTypes.getNeighbour, flags: 0, body };
}

export interface Neighbour {
  readonly linkIndex: number;
  readonly address: Buffer;
  readonly macAddress: Buffer;
  readonly isPermanent: boolean;
}

export function decodeNeighbour(body: Buffer): Neighbour {
  const attributes = decodeAttributes(body, 12);
  return {
    linkIndex: body.readInt32LE(4),
    address: attributes.get(NEIGHBOUR_ADDRESS) ?? Buffer.alloc(4),
    macAddress: attributes.get(NEIGHBOUR_HARDWARE_ADDRESS) ?? Buffer.alloc(6),
    isPermanent: (body.readUInt16LE(8) & NEIGHBOUR_PERMANENT) !== 0,
  };
}

export const listLinks: NetlinkMessage = {
  what: 'list links',
  type: messageTypes.getLink,
  flags: 0,
  body: linkHeader(0),
};

export function listAddresses(family: IpFamily): NetlinkMessage {
  const body = Buffer.alloc(8);
  body[0] = ipFamilies[family].number;
  return { what: 'list addresses', type: messageTypes.getAddress, flags: 0, body };
}

export function listRoutes(family: IpFamily): NetlinkMessage {
  const body = Buffer.alloc(12);
  body[0] = ipFamilies[family].number;
  return { what: 'list routes', type: messageTypes.getRoute, flags: 0, body };
}

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly isUp: boolean;
  readonly alias: string;
}

export function decodeLink(body: Buffer): Link {
  const attributes = decodeAttributes(body, 16);
  return {
    index: body.readInt32LE(4),
    name: textOf(attributes.get(linkAttributes.name) ?? Buffer.alloc(0)),
    mtu: attributes.get(linkAttributes.mtu)?.readUInt32LE() ?? 0,
    isUp: (body.readUInt32LE(8) & LINK_UP) !== 0,
    alias: textOf(attributes.get(linkAttributes.alias) ?? Buffer.alloc(0)),
  };
}

export interface LinkAddress {
  readonly linkIndex: number;
  readonly address: Buffer;
  readonly prefixLength: number;
  /** As opposed to addresses that count on one link, or on this machine, only. */
  readonly isGlobal: boolean;
}

export function decodeAddress(body: Buffer): LinkAddress {
  const attributes = decodeAttributes(body, 8);
  return {
    linkIndex: body.readUInt32LE(4),
    // Of IPv6, only links between two machines have the first.
    address:
      attributes.get(addressAttributes.local) ?? attributes.get(addressAttributes.address) ?? Buffer.alloc(4),
    prefixLength: body[1] ?? 0,
    isGlobal: body[3] === SCOPE_UNIVERSE,
  };
}

export interface Route {
  readonly table: number;
  readonly destination: Buffer;
  readonly prefixLength: number;
  readonly linkIndex: number | undefined;
  readonly gateway: Buffer | undefined;
  readonly isUnreachable: boolean;
}

export function decodeRoute(body: Buffer): Route {
  const attributes = decodeAttributes(body, 12);
  return {
    table: attributes.get(routeAttributes.table)?.readUInt32LE() ?? body[4] ?? 0,
    destination: attributes.get(routeAttributes.destination) ?? Buffer.alloc(body[0] === AF_INET6 ? 16 : 4),
    prefixLength: body[1] ?? 0,
    linkIndex: attributes.get(routeAttributes.link)?.readUInt32LE(),
    gateway: attributes.get(routeAttributes.gateway),
    isUnreachable: body[7] === routeTypes.unreachable,
  };
}

function numberOf(address: Buffer): number {
  return ipFamilies[familyOfBytes(address)].number;
}
