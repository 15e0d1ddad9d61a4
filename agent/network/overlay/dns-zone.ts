// The names of a network, and what a container is told when it asks for one.

import { type Prefix, parseIpv4, prefixSize } from '../ipv4.ts';
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
import type { NameRecord } from './overlay.ts';

/** Short, since backends come and go; long enough for a page that asks for one name fifty times. */
const TTL_SECONDS = 2;
const ADDRESS_BYTES = 4;
const REVERSE_SUFFIX = '.in-addr.arpa';

export class Zone {
  readonly subnet: Prefix;
  /** Undefined until the names are told: nobody knows then which ones there are not. */
  #records: readonly NameRecord[] | undefined;
  readonly #addresses = new Map<string, Buffer>();
  /** Address → its first name; made when somebody asks. */
  #names: Map<string, string> | undefined;

  constructor(subnet: Prefix) {
    this.subnet = subnet;
  }

  /** Records that are the same objects as before, at the same places, are not looked at. */
  update(records: readonly NameRecord[]): void {
    if (records === this.#records) return;
    const before = this.#records ?? [];
    for (const [index, record] of before.entries()) {
      if (record !== records[index]) this.#addresses.delete(record.name.toLowerCase());
    }
    for (const [index, record] of records.entries()) {
      if (record !== before[index]) {
        this.#addresses.set(record.name.toLowerCase(), encodeAddresses(record.addresses));
      }
    }
    this.#records = records;
    this.#names = undefined;
  }

  get isKnown(): boolean {
    return this.#records !== undefined;
  }

  addressesOf(name: string): Buffer | undefined {
    return this.#addresses.get(name);
  }

  nameOf(address: string): string | undefined {
    if (this.#names === undefined) {
      this.#names = new Map();
      for (const { name, addresses } of this.#records ?? []) {
        for (const each of addresses) if (!this.#names.has(each)) this.#names.set(each, name);
      }
    }
    return this.#names.get(address);
  }
}

export interface Client {
  /** Of the networks that the asking container is in; the first that knows a name answers. */
  readonly zones: readonly Zone[];
  /** One of its networks leads out. */
  readonly mayForward: boolean;
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
    const addresses = zone.addressesOf(question.name);
    if (addresses === undefined) continue;
    const wantsAddresses = question.type === recordTypes.a || question.type === recordTypes.any;
    // A name without records of this type exists all the same: "no such name" to a question for its IPv6 address
    // would make some resolvers give up on the name.
    const known: Answer = { code: responseCodes.ok, isAuthoritative: true, ttlSeconds: TTL_SECONDS };
    if (!wantsAddresses || addresses.length === 0) return known;
    return { ...known, addresses, first: Math.floor((Math.random() * addresses.length) / ADDRESS_BYTES) };
  }
  // After a restart: "no such name" would be believed, a failure is asked about again.
  if (!client.zones.every(({ isKnown }) => isKnown)) return { code: responseCodes.serverFailure };
  const reversed = question.name.endsWith(REVERSE_SUFFIX) ? planReverse(question, client) : undefined;
  if (reversed !== undefined) return reversed;
  // What has no dot is nobody's business outside.
  if (question.name.includes('.') && client.mayForward) return 'forward';
  return { code: responseCodes.noSuchName, isAuthoritative: true };
}

/** undefined for addresses of other networks. */
function planReverse(question: Question, client: Client): Answer | undefined {
  const text = question.name.slice(0, -REVERSE_SUFFIX.length).split('.').reverse().join('.');
  const address = parseIpv4(text);
  const zone = client.zones.find(({ subnet }) => address !== undefined && isWithin(address, subnet));
  if (zone === undefined) return undefined;
  const target = zone.nameOf(text);
  if (target === undefined) return { code: responseCodes.noSuchName, isAuthoritative: true };
  const known: Answer = { code: responseCodes.ok, isAuthoritative: true, ttlSeconds: TTL_SECONDS };
  return question.type === recordTypes.ptr || question.type === recordTypes.any
    ? { ...known, target }
    : known;
}

function isWithin(address: number, subnet: Prefix): boolean {
  return address >= subnet.base && address < subnet.base + prefixSize(subnet.length);
}

function encodeAddresses(addresses: readonly string[]): Buffer {
  return Buffer.from(addresses.flatMap((address) => address.split('.').map(Number)));
}
