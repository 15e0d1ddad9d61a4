// Rules that tell which routing table a packet is looked up in.

import { type IpFamily, ipFamilies } from './ip-family.ts';
import {
  type Attribute,
  decodeAttributes,
  encodeAttributes,
  type NetlinkMessage,
  netlinkFlags,
  uint8,
  uint32,
} from './netlink.ts';

const NEW_RULE = 32;
const LIST_RULES = 34;
const HEADER_BYTES = 12;
const LOOK_UP_TABLE = 1;
const INVERT = 2;
const EVERY_BIT = 0xffffffff;
const UDP = 17;
const ruleAttributes = {
  source: 2,
  priority: 6,
  mark: 10,
  suppressedPrefixLength: 14,
  table: 15,
  markMask: 16,
  protocol: 22,
  sourcePorts: 23,
} as const;

/** Which packets it is for; parts that are absent match anything. */
export interface RoutingRule {
  readonly family: IpFamily;
  /** Of IPv4, 0.0.0.0 is that of a packet whose source is chosen by its route. */
  readonly source?: Buffer;
  /** Has any mark. */
  readonly isMarked?: true;
  readonly isUdp?: true;
  readonly sourcePort?: number;
  /** A default route that is found does not count: further rules are looked at. */
  readonly withoutDefault?: true;
  readonly table: number;
  /** Lower ones are looked at first: the main table is at 32766. */
  readonly priority: number;
}

/** EEXIST when there is the same. */
export function addRoutingRule(rule: RoutingRule): NetlinkMessage {
  const header = Buffer.alloc(HEADER_BYTES);
  const { number, hostPrefixLength } = ipFamilies[rule.family];
  header[0] = number;
  header[2] = rule.source === undefined ? 0 : hostPrefixLength;
  header[7] = LOOK_UP_TABLE;
  header.writeUInt32LE(rule.isMarked === true ? INVERT : 0, 8);
  return {
    what: `add rule for routing table ${rule.table}`,
    type: NEW_RULE,
    flags: netlinkFlags.create | netlinkFlags.exclusive,
    body: Buffer.concat([header, encodeAttributes(attributesOf(rule))]),
  };
}

export function listRoutingRules(family: IpFamily): NetlinkMessage {
  const body = Buffer.alloc(HEADER_BYTES);
  body[0] = ipFamilies[family].number;
  return { what: 'list routing rules', type: LIST_RULES, flags: 0, body };
}

/** Whether a reply of `listRoutingRules` is a rule of packets with a mark, with this table and priority. */
export function isMarkRule(body: Buffer, table: number, priority: number): boolean {
  const attributes = decodeAttributes(body, HEADER_BYTES);
  return (
    (body.readUInt32LE(8) & INVERT) !== 0 &&
    attributes.get(ruleAttributes.markMask)?.readUInt32LE() === EVERY_BIT &&
    attributes.get(ruleAttributes.table)?.readUInt32LE() === table &&
    attributes.get(ruleAttributes.priority)?.readUInt32LE() === priority
  );
}

function attributesOf(rule: RoutingRule): Attribute[] {
  const attributes: Attribute[] = [
    [ruleAttributes.table, uint32(rule.table)],
    [ruleAttributes.priority, uint32(rule.priority)],
  ];
  if (rule.source !== undefined) attributes.push([ruleAttributes.source, rule.source]);
  // Not without a mark.
  if (rule.isMarked === true) {
    attributes.push([ruleAttributes.mark, uint32(0)], [ruleAttributes.markMask, uint32(EVERY_BIT)]);
  }
  if (rule.isUdp === true) attributes.push([ruleAttributes.protocol, uint8(UDP)]);
  if (rule.sourcePort !== undefined) {
    const range = Buffer.alloc(4);
    range.writeUInt16LE(rule.sourcePort, 0);
    range.writeUInt16LE(rule.sourcePort, 2);
    attributes.push([ruleAttributes.sourcePorts, range]);
  }
  if (rule.withoutDefault === true) attributes.push([ruleAttributes.suppressedPrefixLength, uint32(0)]);
  return attributes;
}
