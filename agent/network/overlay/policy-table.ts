// The nf_tables of a network's policy, in a table of its own that is there as long as the network has one:
//
//   member     address → number of its group
//   allow      groups of source and destination, protocol and port
//   allow_any  groups of source and destination, whatever the port
//
// A packet is looked up once or twice, however many rules there are. It is looked at behind the translation of VIPs, on the
// node of either end: both refuse alike.

import { isDeepStrictEqual } from 'node:util';
import type { IpFamily } from '../../linux/ip-family.ts';
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
import type { Chain } from '../chains.ts';
import { bytesOf, familyOf } from '../ip-bytes.ts';
import { protocolNumbers } from '../port-holder.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { ignoringErrno } from '../wiring.ts';
import type { Drift, NetworkPolicy } from './overlay.ts';
import { type Elements, planRuleset, type Ruleset, readRuleset, rulesetMessages } from './ruleset.ts';

const POLICY_TABLE = 'tsswarm_policy';
const ENOENT = 2;

const policySets = {
  member: { name: 'member', key: 'address', value: 'mark' },
  allow: { name: 'allow', key: 'markPairProtocolPort' },
  allowAny: { name: 'allow_any', key: 'markPair' },
} as const satisfies Record<string, SetOptions>;

function policyRulesOf(family: IpFamily): Ruleset<keyof typeof policySets> {
  const { member, allow, allowAny } = policySets;
  const chain: Chain = {
    name: 'policy',
    base: { type: 'filter', hook: 'forward', priority: 20 },
    rules: [
      [...isEstablishedOrRelated(true), ...accept()],
      [...interfaceIs('inputName', UPLINK_IN_NETWORK), ...accept()],
      [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...accept()],
      [...groupsAreIn(member.name, allowAny.name, family), ...accept()],
      [...groupsAndPortAreIn(member.name, allow.name, family), ...accept()],
      [...protocolIs(protocolNumbers.tcp), ...reject('reset', family)],
      reject('unreachable', family),
    ],
  };
  return planRuleset(POLICY_TABLE, policySets, [chain], family);
}

const policyRules = {
  ipv4: policyRulesOf('ipv4'),
  ipv6: policyRulesOf('ipv6'),
} as const satisfies Record<IpFamily, Ruleset<keyof typeof policySets>>;

type PolicyElements = Elements<keyof typeof policySets>;

/** Of one family of the network. */
export class PolicyTable {
  readonly #tables: NetlinkSocket;
  readonly #family: IpFamily;
  #applied: PolicyElements | undefined;
  /** Until the first `apply` the table of an earlier process stays as it is. */
  #isKnown = false;

  constructor(tables: NetlinkSocket, family: IpFamily) {
    this.#tables = tables;
    this.#family = family;
  }

  apply(policy: NetworkPolicy | undefined): void {
    const wanted = policy && elementsOf(policy, this.#family);
    if (this.#isKnown && isDeepStrictEqual(wanted, this.#applied)) return;
    this.#applied = wanted;
    this.#isKnown = true;
    this.repair();
  }

  audit(): Drift[] {
    if (!this.#isKnown) return [];
    const found = readRuleset(this.#tables, policyRules[this.#family], (read) => ({
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
    if (this.#applied !== undefined) {
      this.#tables.executeBatch(rulesetMessages(policyRules[this.#family], this.#applied));
    } else {
      const remove = deleteTable(POLICY_TABLE, this.#family);
      ignoringErrno(ENOENT, () => this.#tables.executeBatch([remove]));
    }
  }
}

function elementsOf({ groups, allow }: NetworkPolicy, family: IpFamily): PolicyElements {
  const numbers = new Map(groups.map(({ name }, index) => [name, index + 1]));
  const pairOf = (from: string, to: string) =>
    Buffer.concat([from, to].map((name) => uint32(numbers.get(name) ?? 0)));
  const known = allow.filter(({ from, to }) => numbers.has(from) && numbers.has(to));
  return {
    member: groups.flatMap(({ name, addresses }) =>
      addresses
        .filter((address) => familyOf(address) === family)
        .map((address) => ({ key: bytesOf(address), value: uint32(numbers.get(name) ?? 0) })),
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
