// The names of a network, and what a container is told when it asks for one.

import { contains, type Prefix, parseAddress } from '../../../core/ip-address.ts';
import { type IpFamily, ipFamilies } from '../../linux/ip-family.ts';
import { addressText, bytesOf, familyOf } from '../ip-bytes.ts';
import {
  type Answer,
  CLASS_IN,
  encodeAnswer,
  encodeFormatError,
  parseQuestion,
  type Question,
  recordTypes,
  responseCodes,
} from './dns-message.ts';
import type { NameGroup, NameRecord } from './overlay.ts';

/** Short, since backends come and go; long enough for a page that asks for one name fifty times. */
const TTL_SECONDS = 2;
const REVERSE_SUFFIX = '.in-addr.arpa';
const IPV6_REVERSE_SUFFIX = '.ip6.arpa';
const IPV6_DIGITS = 32;

export type AddressesByFamily = Readonly<Record<IpFamily, Buffer>>;

export class Zone {
  /** Whose reverse names are the network's. */
  subnets: readonly Prefix[];
  /** Undefined until the names are told: nobody knows then which ones there are not. */
  #groups: ReadonlySet<NameGroup> | undefined;
  /** By name in lower case. */
  readonly #records = new Map<string, NameRecord[]>();
  /** Of names that somebody has asked for. */
  readonly #addresses = new Map<string, AddressesByFamily>();
  /** Address → its first name; made when somebody asks. */
  #names: Map<string, string> | undefined;

  constructor(subnets: readonly Prefix[]) {
    this.subnets = subnets;
  }

  update(groups: readonly NameGroup[]): void {
    const before = this.#groups ?? new Set();
    this.#groups = new Set(groups);
    for (const group of before)
      if (!this.#groups.has(group)) for (const record of group) this.#remove(record);
    for (const group of this.#groups) if (!before.has(group)) for (const record of group) this.#add(record);
  }

  get isKnown(): boolean {
    return this.#groups !== undefined;
  }

  /** One after another, as bytes. */
  addressesOf(name: string): AddressesByFamily | undefined {
    const records = this.#records.get(name);
    if (records === undefined) return undefined;
    let addresses = this.#addresses.get(name);
    if (addresses === undefined) {
      addresses = encodeAddresses(new Set(records.flatMap((record) => record.addresses)));
      this.#addresses.set(name, addresses);
    }
    return addresses;
  }

  nameOf(address: string): string | undefined {
    if (this.#names === undefined) {
      this.#names = new Map();
      for (const group of this.#groups ?? [])
        for (const { name, addresses } of group)
          for (const each of addresses) if (!this.#names.has(each)) this.#names.set(each, name);
    }
    return this.#names.get(address);
  }

  #add(record: NameRecord): void {
    const name = this.#forget(record);
    const records = this.#records.get(name);
    if (records === undefined) this.#records.set(name, [record]);
    else records.push(record);
  }

  #remove(record: NameRecord): void {
    const name = this.#forget(record);
    const left = (this.#records.get(name) ?? []).filter((other) => other !== record);
    if (left.length > 0) this.#records.set(name, left);
    else this.#records.delete(name);
  }

  /** What followed from its name and addresses. */
  #forget({ name }: NameRecord): string {
    const known = name.toLowerCase();
    this.#addresses.delete(known);
    this.#names = undefined;
    return known;
  }
}

export interface Client {
  /** Of the networks that the asking container is in; the first that knows a name answers. */
  readonly zones: readonly Zone[];
  /** One of its networks leads out. */
  readonly mayForward: boolean;
  /** Whom to ask for the names of the world outside; absent: whom the node asks. */
  readonly nameServers?: readonly string[] | undefined;
}

/** The answer; 'forward' for names of the world outside; undefined for what is not to be answered. */
export function answerQuery(
  query: Buffer,
  client: Client,
  transport: 'udp' | 'tcp',
): Buffer | 'forward' | undefined {
  const question = parseQuestion(query);
  if (question === undefined) return undefined;
  if (question === 'format-error') return encodeFormatError(query);
  const answer = planAnswer(question, client);
  return answer === 'forward' ? answer : encodeAnswer(query, question, answer, transport);
}

/** When the servers outside do not answer. */
export function failQuery(query: Buffer): Buffer | undefined {
  const question = parseQuestion(query);
  if (question === undefined || question === 'format-error') return undefined;
  return encodeAnswer(query, question, { code: responseCodes.serverFailure }, 'udp');
}

function planAnswer(question: Question, client: Client): Answer | 'forward' {
  if (question.opcode !== 0) return { code: responseCodes.notImplemented };
  if (question.class !== CLASS_IN) return { code: responseCodes.refused };
  for (const zone of client.zones) {
    const found = zone.addressesOf(question.name);
    if (found === undefined) continue;
    // A name without records of this type exists all the same: "no such name" to a question for its IPv6 address
    // would make some resolvers give up on the name.
    const known: Answer = { code: responseCodes.ok, isAuthoritative: true, ttlSeconds: TTL_SECONDS };
    const family = familyAskedFor(question.type, found);
    if (family === undefined || found[family].length === 0) return known;
    const addresses = found[family];
    const count = addresses.length / ipFamilies[family].addressBytes;
    return { ...known, addresses, family, first: Math.floor(Math.random() * count) };
  }
  // After a restart: "no such name" would be believed, a failure is asked about again.
  if (!client.zones.every(({ isKnown }) => isKnown)) return { code: responseCodes.serverFailure };
  const reverse = planReverse(question, client);
  if (reverse !== undefined) return reverse;
  // What has no dot is nobody's business outside.
  if (question.name.includes('.') && client.mayForward) return 'forward';
  return { code: responseCodes.noSuchName, isAuthoritative: true };
}

/** Who asks for anything gets what there is, of one family. */
function familyAskedFor(type: number, { ipv4 }: AddressesByFamily): IpFamily | undefined {
  if (type === recordTypes.a) return 'ipv4';
  if (type === recordTypes.aaaa) return 'ipv6';
  if (type === recordTypes.any) return ipv4.length > 0 ? 'ipv4' : 'ipv6';
  return undefined;
}

/** undefined for addresses of other networks. */
function planReverse(question: Question, client: Client): Answer | undefined {
  const text = addressOfReverse(question.name);
  const address = text === undefined ? undefined : parseAddress(text);
  if (text === undefined || address === undefined) return undefined;
  const zone = client.zones.find(({ subnets }) => subnets.some((subnet) => contains(subnet, address)));
  if (zone === undefined) return undefined;
  const target = zone.nameOf(text);
  if (target === undefined) return { code: responseCodes.noSuchName, isAuthoritative: true };
  const known: Answer = { code: responseCodes.ok, isAuthoritative: true, ttlSeconds: TTL_SECONDS };
  return question.type === recordTypes.ptr || question.type === recordTypes.any
    ? { ...known, target }
    : known;
}

/** "1.1.0.10.in-addr.arpa", or 32 digits before "ip6.arpa" (RFC 3596); undefined for any other name. */
function addressOfReverse(name: string): string | undefined {
  if (name.endsWith(REVERSE_SUFFIX)) return reversed(name, REVERSE_SUFFIX).join('.');
  if (!name.endsWith(IPV6_REVERSE_SUFFIX)) return undefined;
  const digits = reversed(name, IPV6_REVERSE_SUFFIX);
  const isWhole = digits.length === IPV6_DIGITS && digits.every((digit) => /^[0-9a-f]$/.test(digit));
  return isWhole ? addressText(Buffer.from(digits.join(''), 'hex')) : undefined;
}

function reversed(name: string, suffix: string): string[] {
  return name.slice(0, -suffix.length).split('.').reverse();
}

function encodeAddresses(addresses: ReadonlySet<string>): AddressesByFamily {
  const of = (family: IpFamily) =>
    Buffer.concat([...addresses].filter((address) => familyOf(address) === family).map(bytesOf));
  return { ipv4: of('ipv4'), ipv6: of('ipv6') };
}
