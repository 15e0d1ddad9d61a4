// Published ports of the routing mesh at the host: each is held by a socket, so that no process of the host loses a port
// or starts on one that gets no packets, and is known in the ingress network by an inner port, so that two addresses of
// the host can have the same port for different services.

import { invalidField, messageOf, SwarmError } from '../../../core/errors.ts';
import { parseAddress } from '../../../core/ip-address.ts';
import type { IpFamily } from '../../linux/ip-family.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { decodeAddress, listAddresses } from '../../linux/rtnetlink.ts';
import { addressText, familyOf } from '../ip-bytes.ts';
import { isIpv6InKernel } from '../ipv6-link.ts';
import { holdPort, releasePort } from '../port-holder.ts';
import { relayPort } from '../port-relay.ts';
import { linksOf } from '../wiring.ts';
import type { InnerPort, InnerPorts } from './ingress-mesh.ts';
import { checkWeight } from './network-layout.ts';
import type { PortProblem, PublishedPort } from './overlay.ts';

/** A port of all IPv4 addresses of the host, or of one address; "::" is all of IPv6. */
export interface HostPort {
  readonly protocol: PublishedPort['protocol'];
  readonly port: number;
  readonly address: string | undefined;
}

const PORT_MAX = 65_535;
/** Of the addresses of a host that listen everywhere. */
const ANY_ADDRESS = '0.0.0.0';
export const ANY_IPV6_ADDRESS = '::';

export class HostPorts implements Disposable {
  readonly #routes: NetlinkSocket;
  readonly #held = new Map<string, Disposable>();
  /** What the host's table sends where: host port → inner port. */
  #inner: ReadonlyMap<string, number> = new Map();
  #problems: PortProblem[] = [];

  /** `routes` is a socket of the host's namespace. */
  constructor(routes: NetlinkSocket) {
    this.#routes = routes;
  }

  get inner(): ReadonlyMap<string, number> {
    return this.#inner;
  }

  /** Of the last `plan`. */
  get problems(): readonly PortProblem[] {
    return this.#problems;
  }

  /** What an earlier process has programmed. Until the next `plan`, a port that cannot be held stays programmed. */
  adopt(inner: ReadonlyMap<string, number>): void {
    this.#inner = inner;
    for (const name of inner.keys()) this.#hold(name);
  }

  /**
   * Holds what can be held and lets go of the rest; the inner ports to program, and their containers. `families` are those
   * that host and ingress both have.
   */
  plan(published: readonly PublishedPort[], families: readonly IpFamily[]): InnerPorts {
    this.#problems = [];
    const wanted = published.map((entry) => ({ entry, names: this.#hostPortsOf(entry, families) }));
    const isRelayed = !families.includes('ipv6') && isIpv6InKernel();
    const relayed = isRelayed ? published.flatMap(relayedPortOf) : [];
    this.#release(new Set([...wanted.flatMap(({ names }) => names), ...relayed]));
    const inner = new Map<string, number>();
    // A port that is free from now on may still be sent to until the host's table has changed.
    const taken = new Set([...this.#inner].map(([name, port]) => innerName(parseHostPort(name), port)));
    const ports = new Map<InnerPort, PublishedPort>();
    for (const { entry, names } of wanted) {
      const held = names.filter((name) => this.#accepts(entry, name, inner));
      if (held.length === 0) continue;
      const port = this.#innerPort(entry, held, taken, ports);
      for (const name of held) inner.set(name, port);
      taken.add(innerName(entry, port));
      ports.set(innerName(entry, port), entry);
    }
    this.#inner = inner;
    // Nobody was promised these: who has one keeps it.
    for (const name of relayed) if (inner.has(withoutAddress(name))) this.#hold(name);
    return ports;
  }

  /** Nothing is published any more. */
  clear(): void {
    this.#release(new Set());
    this.#inner = new Map();
    this.#problems = [];
  }

  [Symbol.dispose](): void {
    this.clear();
  }

  #release(except: ReadonlySet<string>): void {
    for (const [name, held] of this.#held) {
      if (except.has(name)) continue;
      held[Symbol.dispose]();
      this.#held.delete(name);
    }
  }

  #accepts(entry: PublishedPort, name: string, inner: ReadonlyMap<string, number>): boolean {
    const reason = inner.has(name) ? 'it is published twice' : this.#hold(name);
    if (reason !== undefined) this.#report(entry, reason);
    return reason === undefined;
  }

  /** Why it cannot be held; undefined when it is. */
  #hold(name: string): string | undefined {
    if (this.#held.has(name)) return undefined;
    const { protocol, port, address } = parseHostPort(name);
    try {
      this.#held.set(name, hold({ protocol, port, address }));
      return undefined;
    } catch (error) {
      if (!(error instanceof SwarmError) || error.code !== 'failed-precondition') throw error;
      return messageOf(error);
    }
  }

  #hostPortsOf(entry: PublishedPort, families: readonly IpFamily[]): string[] {
    const { protocol, port } = entry;
    return this.#hostAddressesOf(entry, families).map((address) => hostPortName({ protocol, port, address }));
  }

  /** undefined is all of IPv4. */
  #hostAddressesOf(entry: PublishedPort, families: readonly IpFamily[]): (string | undefined)[] {
    const { hostAddress, hostInterface } = entry;
    if (hostInterface !== undefined) {
      const addresses = families.flatMap((family) => this.#addressesOf(hostInterface, family));
      if (addresses.length === 0)
        this.#report(entry, `no interface ${hostInterface} of this node has an address`);
      return addresses;
    }
    if (hostAddress === ANY_ADDRESS) return [undefined];
    if (hostAddress === undefined)
      return families.map((family) => (family === 'ipv4' ? undefined : ANY_IPV6_ADDRESS));
    if (families.includes(familyOf(hostAddress))) return [hostAddress];
    this.#report(entry, `${hostAddress}: this node or its ingress network has no IPv6`);
    return [];
  }

  #addressesOf(linkName: string, family: IpFamily): string[] {
    const link = linksOf(this.#routes).find(({ name }) => name === linkName);
    if (link === undefined) return [];
    return this.#routes
      .dump(listAddresses(family))
      .map(({ body }) => decodeAddress(body))
      .filter(({ linkIndex, isGlobal }) => linkIndex === link.index && (isGlobal || family === 'ipv4'))
      .map(({ address }) => addressText(address));
  }

  #report({ protocol, port, hostAddress, hostInterface }: PublishedPort, reason: string): void {
    this.#problems.push({
      protocol,
      port,
      ...(hostAddress === undefined ? undefined : { hostAddress }),
      ...(hostInterface === undefined ? undefined : { hostInterface }),
      reason,
    });
  }

  /** The one that it has, else its own number when that is free. */
  #innerPort(
    entry: PublishedPort,
    names: readonly string[],
    taken: ReadonlySet<InnerPort>,
    planned: InnerPorts,
  ): number {
    for (const name of names) {
      const port = this.#inner.get(name);
      if (port !== undefined && !planned.has(innerName(entry, port))) return port;
    }
    for (let step = 0; step < PORT_MAX; step++) {
      const port = 1 + ((entry.port - 1 + step) % PORT_MAX);
      if (!taken.has(innerName(entry, port))) return port;
    }
    throw new SwarmError('resource-exhausted', `published: all ${entry.protocol} ports are in use`);
  }
}

export function checkPublished({ port, hostAddress, hostInterface, backends }: PublishedPort): void {
  checkPort('published.port', port);
  if (hostAddress !== undefined) checkHostAddress('published.hostAddress', hostAddress);
  if (hostAddress !== undefined && hostInterface !== undefined) {
    throw invalidField('published.hostInterface', 'an address is given as well');
  }
  for (const backend of backends) {
    checkHostAddress('published.backends.address', backend.address);
    checkPort('published.backends.port', backend.port);
    checkWeight('published.backends.weight', backend.weight ?? 1);
  }
}

function checkHostAddress(field: string, text: string): void {
  if (parseAddress(text) === undefined) throw invalidField(field, `"${text}" is no address`);
}

function checkPort(field: string, port: number): void {
  if (!Number.isInteger(port) || port < 1 || port > PORT_MAX) {
    throw invalidField(field, `${port} is not 1 to ${PORT_MAX}`);
  }
}

/** "tcp 80", "tcp 192.0.2.1:80", "tcp [::]:80". */
export function hostPortName({ protocol, port, address }: HostPort): string {
  if (address === undefined) return `${protocol} ${port}`;
  return `${protocol} ${familyOf(address) === 'ipv4' ? address : `[${address}]`}:${port}`;
}

export function parseHostPort(name: string): HostPort {
  const [protocol, where = ''] = name.split(' ') as [HostPort['protocol'], string];
  const portStart = where.lastIndexOf(':') + 1;
  const address = portStart === 0 ? undefined : where.slice(0, portStart - 1).replace(/^\[|\]$/g, '');
  return { protocol, port: Number(where.slice(portStart)), address };
}

/** Ports of ::1 are relayed whatever the ingress has, so their holders listen. */
function hold({ protocol, port, address }: HostPort): Disposable {
  if (address === ANY_IPV6_ADDRESS) return relayPort(protocol, port);
  const held = holdPort(protocol, port, address);
  return { [Symbol.dispose]: () => releasePort(held) };
}

/** What reaches an ingress without IPv6 by IPv6 all the same. */
function relayedPortOf({ protocol, port, hostAddress, hostInterface }: PublishedPort): string[] {
  if (hostAddress !== undefined || hostInterface !== undefined) return [];
  return [hostPortName({ protocol, port, address: ANY_IPV6_ADDRESS })];
}

function withoutAddress(name: string): string {
  return hostPortName({ ...parseHostPort(name), address: undefined });
}

export function familyOfHostPort(name: string): IpFamily {
  return familyOf(parseHostPort(name).address ?? ANY_ADDRESS);
}

function innerName({ protocol }: Pick<HostPort, 'protocol'>, port: number): InnerPort {
  return `${protocol} ${port}`;
}
