// What the netfilter families (nf_tables, connection tracking) share: a four-byte header behind the netlink header,
// and the marks around a batch. Their numbers are big-endian.

import { type Attribute, encodeAttributes, type NetlinkMessage } from './netlink.ts';

export const netfilterSubsystems = { connectionTracking: 1, tables: 10 } as const;

/** Families as netfilter counts them. */
export const netfilterFamilies = { any: 0, inet: 1, ipv4: 2, netdev: 5, ipv6: 10 } as const;

/** Before the attributes of a message. */
export const NETFILTER_HEADER_BYTES = 4;

const BATCH_BEGIN = 16;
const BATCH_END = 17;

export interface NetfilterRequest {
  readonly what: string;
  readonly subsystem: number;
  readonly command: number;
  readonly flags?: number;
  readonly family?: number;
  readonly version?: number;
  readonly attributes?: readonly Attribute[];
}

export function netfilterMessage(request: NetfilterRequest): NetlinkMessage {
  return {
    what: request.what,
    type: (request.subsystem << 8) | request.command,
    flags: request.flags ?? 0,
    body: Buffer.concat([
      Buffer.from([request.family ?? netfilterFamilies.ipv4, request.version ?? 0, 0, 0]),
      encodeAttributes(request.attributes ?? []),
    ]),
  };
}

function batchMark(what: string, type: number): NetlinkMessage {
  return { what, type, flags: 0, body: Buffer.from([0, 0, 0, netfilterSubsystems.tables]) };
}

export const beginBatch = batchMark('begin batch', BATCH_BEGIN);
export const endBatch = batchMark('end batch', BATCH_END);
