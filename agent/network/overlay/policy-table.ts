// The nf_tables of a network's policy, in a table of its own that is there as long as the network has one:
//
//   member     address → number of its group
//   allow      groups of source and destination, protocol and port
//   allow_any  groups of source and destination, whatever the port
//
// A packet is looked up once or twice, however many rules there are. It is looked at behind the translation of VIPs, on the
// node of either end: both refuse alike.

import { isDeepStrictEqual } from 'node:util';
import { uint32 } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { accept, deleteTable, interfaceIs, isEstablishedOrRelated } from '../../linux/nftables.ts';
import {
  groupsAndPortAreIn,
  groupsAreIn,
  protocolIs,
  protocolPortKey,
  reject,
  type SetElement,
  type SetOptions,
} from '../../linux/nftables-maps.ts';
import { protocolNumbers } from '../port-holder.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { ignoringErrno } from '../wiring.ts';
import type { Drift, NetworkPolicy } from './overlay.ts';
import { bytesOf } from './overlay-wiring.ts';
import { type Elements, planRuleset, readRuleset, rulesetMessages } from './ruleset.ts';

const POLICY_TABLE = 'tsswarm_policy';
const ENOENT = 2;

const policySets = {
  member: { name: 'member', key: 'address', value: 'mark' },
  allow: { name: 'allow', key: 'markPairProtocolPort' },
  allowAny: { name: 'allow_any', key: 'markPair' },
} as const satisfies Record<string, SetOptions>;

const policyRules = planRuleset(POLICY_TABLE, policySets, [
  {
    name: 'policy',
    base: { type: 'filter', hook: 'forward', priority: 20 },
    rules: [
      [...isEstablishedOrRelated(true), ...accept()],
      [...interfaceIs('inputName', UPLINK_IN_NETWORK), ...accept()],
      [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...accept()],
      [...groupsAreIn(policySets.member.name, policySets.allowAny.name), ...accept()],
      [...groupsAndPortAreIn(policySets.member.name, policySets.allow.name), ...accept()],
      [...protocolIs(protocolNumbers.tcp), ...reject('reset')],
      reject('unreachable'),
    ],
  },
]);

type PolicyElements = Elements<keyof typeof policySets>;

export class PolicyTable {
  readonly #tables: NetlinkSocket;
  #applied: PolicyElements | undefined;
  /** Until the first `apply` the table of an earlier process stays as it is. */
  #isKnown = false;

  constructor(tables: NetlinkSocket) {
    this.#tables = tables;
  }

  apply(policy: NetworkPolicy | undefined): void {
    const wanted = policy && elementsOf(policy);
    if (this.#isKnown && isDeepStrictEqual(wanted, this.#applied)) return;
    this.#applied = wanted;
    this.#isKnown = true;
    this.repair();
  }

  audit(): Drift[] {
    if (!this.#isKnown) return [];
    const found = readRuleset(this.#tables, policyRules, (read) => ({
      member: read('member'),
      allow: read('allow'),
      allowAny: read('allowAny'),
    }));
    const isRight = this.#applied === undefined ? found === undefined : found && isSame(found, this.#applied);
    return isRight ? [] : [{ what: 'policy', name: POLICY_TABLE, problem: 'different' }];
  }

  /** In one transaction: nobody slips through meanwhile. */
  repair(): void {
    if (!this.#isKnown) return;
    if (this.#applied !== undefined) this.#tables.executeBatch(rulesetMessages(policyRules, this.#applied));
    else ignoringErrno(ENOENT, () => this.#tables.executeBatch([deleteTable(POLICY_TABLE)]));
  }
}

function elementsOf({ groups, allow }: NetworkPolicy): PolicyElements {
  const numbers = new Map(groups.map(({ name }, index) => [name, index + 1]));
  const pairOf = (from: string, to: string) =>
    Buffer.concat([from, to].map((name) => uint32(numbers.get(name) ?? 0)));
  const known = allow.filter(({ from, to }) => numbers.has(from) && numbers.has(to));
  return {
    member: groups.flatMap(({ name, addresses }) =>
      addresses.map((address) => ({ key: bytesOf(address), value: uint32(numbers.get(name) ?? 0) })),
    ),
    allow: distinct(
      known.flatMap(({ from, to, port }) =>
        port === undefined
          ? []
          : [Buffer.concat([pairOf(from, to), protocolPortKey(protocolNumbers[port.protocol], port.number)])],
      ),
    ),
    allowAny: distinct(known.flatMap(({ from, to, port }) => (port === undefined ? [pairOf(from, to)] : []))),
  };
}

function distinct(keys: readonly Buffer[]): SetElement[] {
  return [...new Map(keys.map((key) => [key.toString('hex'), { key }])).values()];
}

/** In whatever order the kernel lists them. */
function isSame(a: PolicyElements, b: PolicyElements): boolean {
  const textOf = ({ key, value }: SetElement) =>
    `${key.toString('hex')} ${Buffer.isBuffer(value) ? value.toString('hex') : ''}`;
  const listOf = (elements: PolicyElements) =>
    [elements.member, elements.allow, elements.allowAny].map((list) => list.map(textOf).sort());
  return isDeepStrictEqual(listOf(a), listOf(b));
}
