// The host's table for all overlay networks of an engine, of one family: what enters and leaves them, and published ports.

import { isDeepStrictEqual } from 'node:util';
import { assert } from '../../../core/assert.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { deleteConnections } from '../../linux/conntrack.ts';
import { type IpFamily, ipFamilies } from '../../linux/ip-family.ts';
import { SystemCallError } from '../../linux/libc.ts';
import { type NetlinkMessage, textOf } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { deleteTable } from '../../linux/nftables.ts';
import {
  addElements,
  deleteElements,
  portField,
  protocolPortKey,
  type SetElement,
} from '../../linux/nftables-maps.ts';
import { addressText, bytesOf } from '../ip-bytes.ts';
import { protocolNumbers } from '../port-holder.ts';
import { ignoringErrno } from '../wiring.ts';
import { compareMaps } from './drift.ts';
import { ANY_IPV6_ADDRESS, type HostPort, hostPortName, parseHostPort } from './host-ports.ts';
import type { Drift } from './overlay.ts';
import { hostSets, overlayHostRules, overlayHostTable } from './overlay-rulesets.ts';
import { type Ruleset, readElements, readRuleset, rulesetMessages } from './ruleset.ts';

/** Where published ports are sent: the uplink's address in the ingress network, and the inner port of each. */
export interface PortTargets {
  /** Absent: there is no ingress. */
  readonly address: Buffer | undefined;
  readonly inner: ReadonlyMap<string, number>;
}

export interface HostTableOptions {
  readonly family: IpFamily;
  readonly engineId: string;
  readonly dataPathPort: number;
  readonly logger: Logger;
}

/** Host port → address and port in the ingress network. */
type Translations = ReadonlyMap<string, string>;

const ENOENT = 2;
const INTERFACE_NAME_BYTES = 16;
const PORT_KEY_BYTES = 8;
const noTargets: PortTargets = { address: undefined, inner: new Map() };

export class HostTable {
  readonly #tables: NetlinkSocket;
  readonly #logger: Logger;
  readonly #name: string;
  readonly #family: IpFamily;
  readonly #rules: Ruleset<keyof typeof hostSets>;
  #uplinks: readonly string[] = [];
  #targets: PortTargets = noTargets;
  #exists = false;

  constructor(tables: NetlinkSocket, options: HostTableOptions) {
    this.#tables = tables;
    this.#logger = options.logger;
    this.#name = overlayHostTable(options.engineId);
    this.#family = options.family;
    this.#rules = overlayHostRules(this.#name, options.dataPathPort, options.family);
  }

  get targets(): PortTargets {
    return this.#targets;
  }

  /** What an earlier process has programmed. */
  adopt(): void {
    // Whatever the rules beside them: those of another program version are replaced and the ports stay.
    ignoringErrno(ENOENT, () => {
      const read = (set: string): SetElement[] => readElements(this.#tables, this.#name, set, this.#family);
      const elements = [...read(hostSets.published.name), ...read(hostSets.publishedAt.name)];
      this.#targets = targetsIn(elements, this.#family);
    });
  }

  /** In one transaction, with these ends of the networks' links; undefined: there is nothing that needs a table. */
  write(uplinks: readonly string[] | undefined): void {
    if (uplinks === undefined) {
      this.#remove();
      return;
    }
    this.#uplinks = uplinks;
    this.#exists = true;
    const elements = {
      uplinks: uplinks.map((name) => ({ key: interfaceNameKey(name) })),
      ...portElements(this.#targets),
    };
    this.#tables.executeBatch(rulesetMessages(this.#rules, elements));
  }

  #remove(): void {
    this.#targets = noTargets;
    this.#exists = false;
    const message = deleteTable(this.#name, this.#family);
    ignoringErrno(ENOENT, () => this.#tables.executeBatch([message]));
  }

  /** Only differences reach the kernel. */
  publish(targets: PortTargets): void {
    const before = this.#targets;
    this.#targets = targets;
    const isMoved = targets.address?.equals(before.address ?? targets.address) === false;
    const left = [...before.inner].filter(([name, port]) => isMoved || targets.inner.get(name) !== port);
    const added = [...targets.inner].filter(([name, port]) => isMoved || before.inner.get(name) !== port);
    const oldElements = portElements({ ...before, inner: new Map(left) });
    const newElements = portElements({ ...targets, inner: new Map(added) });
    this.#change(
      (['published', 'publishedAt'] as const).flatMap((set) => {
        const keys = oldElements[set].map(({ key }) => key);
        const { name } = hostSets[set];
        return [
          ...deleteElements(this.#name, name, keys, this.#family),
          ...addElements(this.#name, name, newElements[set], this.#family),
        ];
      }),
    );
    this.#tables.execute([...forgetTranslated(before, left), ...forgetUntranslated(added, this.#family)]);
  }

  drift(uplinks: readonly string[] | undefined): Drift[] {
    if (uplinks === undefined) {
      return this.#exists ? [{ what: 'host-table', name: this.#name, problem: 'unexpected' }] : [];
    }
    const found = readRuleset(this.#tables, this.#rules, (read) => ({
      uplinks: new Set(read('uplinks').map(({ key }) => textOf(key))),
      translations: new Map(
        [...read('published'), ...read('publishedAt')].map((element) => translationIn(element, this.#family)),
      ),
    }));
    if (found === undefined || !isDeepStrictEqual(found.uplinks, new Set(uplinks))) {
      return [{ what: 'host-table', name: this.#name, problem: 'different' }];
    }
    return compareMaps('host-port', translationsOf(this.#targets), found.translations);
  }

  /** When the table is not what it should be, it is written anew. */
  #change(messages: readonly NetlinkMessage[]): void {
    try {
      this.#tables.executeBatch(messages);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      this.#logger.warn({ error: error.message }, "repairing the host's table of overlay networks");
      this.write(this.#uplinks);
    }
  }
}

/**
 * Flows of UDP ports that are not published any more. A client that keeps sending would otherwise keep the port from a
 * process of the host that comes to use it.
 */
function forgetTranslated(
  { address }: PortTargets,
  left: readonly (readonly [name: string, innerPort: number])[],
): NetlinkMessage[] {
  if (address === undefined) return [];
  return left
    .filter(isUdp)
    .map(([, sourcePort]) =>
      deleteConnections('reply', { source: address, protocolNumber: protocolNumbers.udp, sourcePort }),
    );
}

/** A UDP client that was already sending would go on to reach nothing: its flow is known as not translated. */
function forgetUntranslated(
  added: readonly (readonly [name: string, innerPort: number])[],
  family: IpFamily,
): NetlinkMessage[] {
  return added.filter(isUdp).map(([name]) => {
    const destinationPort = parseHostPort(name).port;
    return deleteConnections('original', { family, protocolNumber: protocolNumbers.udp, destinationPort });
  });
}

function isUdp([name]: readonly [name: string, innerPort: number]): boolean {
  return parseHostPort(name).protocol === 'udp';
}

function portElements({ address, inner }: PortTargets): Record<'published' | 'publishedAt', SetElement[]> {
  const published: SetElement[] = [];
  const publishedAt: SetElement[] = [];
  if (address === undefined) return { published, publishedAt };
  for (const [name, innerPort] of inner) {
    const hostPort = parseHostPort(name);
    const key = protocolPortKey(protocolNumbers[hostPort.protocol], hostPort.port);
    const value = Buffer.concat([address, portField(innerPort)]);
    const isAny = hostPort.address === undefined || hostPort.address === ANY_IPV6_ADDRESS;
    if (isAny) published.push({ key, value });
    else publishedAt.push({ key: Buffer.concat([bytesOf(hostPort.address ?? ''), key]), value });
  }
  return { published, publishedAt };
}

/** Where all of the elements lead; none when they do not agree. */
function targetsIn(elements: readonly SetElement[], family: IpFamily): PortTargets {
  const { addressBytes } = ipFamilies[family];
  const [first] = elements;
  if (first === undefined) return noTargets;
  const address = targetOf(first).subarray(0, addressBytes);
  if (!elements.every((element) => targetOf(element).subarray(0, addressBytes).equals(address)))
    return noTargets;
  const inner = elements.map(
    (element) => [nameOf(element, family), targetOf(element).readUInt16BE(addressBytes)] as const,
  );
  return { address, inner: new Map(inner) };
}

function translationIn(element: SetElement, family: IpFamily): readonly [string, string] {
  const target = targetOf(element);
  const { addressBytes } = ipFamilies[family];
  const address = addressText(target.subarray(0, addressBytes));
  return [nameOf(element, family), `${address} ${target.readUInt16BE(addressBytes)}`];
}

function translationsOf({ address, inner }: PortTargets): Translations {
  return new Map([...inner].map(([name, port]) => [name, `${address && addressText(address)} ${port}`]));
}

function targetOf({ value }: SetElement): Buffer {
  assert(Buffer.isBuffer(value), 'a published port without a target');
  return value;
}

/** Of a key with an address or without. */
function nameOf({ key }: SetElement, family: IpFamily): string {
  const portKey = key.subarray(key.length - PORT_KEY_BYTES);
  const anyAddress = family === 'ipv4' ? undefined : ANY_IPV6_ADDRESS;
  const address =
    key.length > PORT_KEY_BYTES ? addressText(key.subarray(0, key.length - PORT_KEY_BYTES)) : anyAddress;
  const names = Object.keys(protocolNumbers) as HostPort['protocol'][];
  const protocol = names.find((name) => protocolNumbers[name] === portKey[0]) ?? 'tcp';
  return hostPortName({ protocol, port: portKey.readUInt16BE(4), address });
}

function interfaceNameKey(name: string): Buffer {
  const key = Buffer.alloc(INTERFACE_NAME_BYTES);
  key.write(name);
  return key;
}
