// The network that containers without an overlay share: each reaches the others, the outside and, by published ports,
// is reached. The kernel and the record files are the state; this object can be lost at any moment and opened again.
//
// The work is done in the calling thread: 1–2 ms per container. A worker thread would cost 11 MB of private memory
// (measured with Node 24), more than everything else here together.

import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { defined } from '../../core/assert.ts';
import { invalidField, SwarmError } from '../../core/errors.ts';
import type { PortConfig } from '../../core/generated/objects.ts';
import type { Logger } from '../../rpc/logger.ts';
import { type IpFamily, ipFamilies } from '../linux/ip-family.ts';
import { isPinnedNamespace, removeNamespace, startThreadPool } from '../linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../linux/netlink-socket.ts';
import { deleteTable } from '../linux/nftables.ts';
import { readNetworkSetting, writeNetworkSetting } from '../linux/sysctl.ts';
import { AddressPool } from './address-pool.ts';
import { enableForwarding, restoreForwarding } from './forwarding.ts';
import { hasIpv6, outgoingMtu, usedPrefixes } from './host-survey.ts';
import { addressText } from './ip-bytes.ts';
import { formatIpv4, formatPrefix, parseIpv4, parsePrefix } from './ipv4.ts';
import { type HostPortHold, holdAllPublished, holdPublished, isTaken } from './local-ports.ts';
import type { Endpoint, EndpointRequest, Network } from './network.ts';
import { portInUse } from './port-holder.ts';
import { PortTables } from './port-tables.ts';
import { type EndpointRecord, type NetworkRecord, Records } from './records.ts';
import { planResolvConf, readResolvConfSources } from './resolv-conf.ts';
import { hostTableName } from './rulesets.ts';
import { defaultSubnets, planLink, planSubnet } from './subnet-choice.ts';
import {
  type EndpointLayout,
  endpointLinkName,
  ignoringErrno,
  linksOf,
  removeLink,
  UPLINK_PREFIX,
  Wiring,
} from './wiring.ts';

export interface LocalNetworkLocation {
  /** For what ends with the machine's uptime: namespaces are pinned below it. */
  readonly runDir: string;
  readonly stateDir: string;
  /** Tells this engine's interfaces and tables from those of others on the machine. */
  readonly engineId: string;
}

export interface LocalNetworkOptions extends LocalNetworkLocation {
  /** "10.186.0.0/16"; chosen when absent. An existing network keeps its own. */
  readonly subnet?: string;
  readonly logger: Logger;
}

export interface LocalNetwork extends Network {
  /** Writes the tables anew when they are not as they should be. True when they were not. */
  repair(): boolean;
  /** Takes the whole network off the machine, endpoints included. */
  destroy(): Promise<void>;
}

const NETWORK_PIN = 'n-local';
/** An interface name has 15 characters. */
const ENGINE_ID_PATTERN = /^[a-z0-9]{1,11}$/;
const ENDPOINT_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const ENDPOINT_LINK_PATTERN = /^v[0-9a-f]{8}$/;
/** Addresses whose former link is still being freed, before one that is free. */
const WIRING_ATTEMPTS_MAX = 64;
const ENOENT = 2;

interface EndpointState {
  record: EndpointRecord;
  held: readonly HostPortHold[];
}

interface Places {
  readonly namespacesDir: string;
  readonly networkPin: string;
  readonly uplinkName: string;
  readonly hostTable: string;
  readonly records: Records;
}

function placesOf(location: LocalNetworkLocation): Places {
  if (!ENGINE_ID_PATTERN.test(location.engineId)) {
    throw invalidField('engineId', `"${location.engineId}" is not 1 to 11 lower-case letters and digits`);
  }
  const namespacesDir = join(location.runDir, 'netns');
  return {
    namespacesDir,
    networkPin: join(namespacesDir, NETWORK_PIN),
    uplinkName: UPLINK_PREFIX + location.engineId,
    hostTable: hostTableName(location.engineId),
    records: new Records(location.stateDir, location.runDir),
  };
}

/** Opens the network of this engine, making what is missing and adopting the endpoints that exist. */
export async function openLocalNetwork(options: LocalNetworkOptions): Promise<LocalNetwork> {
  const places = placesOf(options);
  await startThreadPool();
  mkdirSync(places.namespacesDir, { recursive: true });
  places.records.createFolders();
  const { record, mtu } = prepareHost(options, places);
  const subnet = parsePrefix(record.subnet);
  const wiring = new Wiring({
    namespacePath: places.networkPin,
    uplinkName: places.uplinkName,
    subnet,
    link: parsePrefix(record.link),
    mtu,
    hasIpv6,
  });
  try {
    wiring.configureNetwork();
    const network = new KernelLocalNetwork(options, places, wiring, record);
    network.adopt();
    return network;
  } catch (error) {
    wiring[Symbol.dispose]();
    throw error;
  }
}

/** Takes a network off the machine, also when no process has it open. What is not there is fine. */
export async function destroyLocalNetwork(location: LocalNetworkLocation): Promise<void> {
  const places = placesOf(location);
  await startThreadPool();
  for (const pin of pinsIn(places.namespacesDir)) removeNamespace(join(places.namespacesDir, pin));
  using routes = new NetlinkSocket(netlinkProtocols.route);
  using tables = new NetlinkSocket(netlinkProtocols.netfilter);
  removeLink(routes, places.uplinkName);
  for (const family of Object.keys(ipFamilies) as IpFamily[])
    ignoringErrno(ENOENT, () => tables.executeBatch([deleteTable(places.hostTable, family)]));
  const isLast = !linksOf(routes).some((link) => link.name.startsWith(UPLINK_PREFIX));
  if (isLast && places.records.readNetwork()?.enabledForwarding === true) {
    writeNetworkSetting('ipv4/ip_forward', 0);
  }
  if (isLast) restoreForwarding(location.runDir);
  places.records.removeAll();
}

/** Chooses and remembers the network's addresses, and lets the host forward. */
function prepareHost(options: LocalNetworkOptions, places: Places): { record: NetworkRecord; mtu: number } {
  using routes = new NetlinkSocket(netlinkProtocols.route);
  let record = chooseAddresses(options, places, routes);
  if (readNetworkSetting('ipv4/ip_forward') === '0') record = { ...record, enabledForwarding: true };
  // First the note, then the deed: after a crash in between, destroy only switches off what is off.
  places.records.writeNetwork(record);
  if (readNetworkSetting('ipv4/ip_forward') === '0') {
    writeNetworkSetting('ipv4/ip_forward', 1);
    options.logger.info({ 'network.subnet': record.subnet }, 'enabled IPv4 forwarding on this node');
  }
  return { record, mtu: outgoingMtu(routes) };
}

/** A network that exists keeps its addresses; after a reboot they are kept when they are still free. */
function chooseAddresses(options: LocalNetworkOptions, places: Places, routes: NetlinkSocket): NetworkRecord {
  const remembered = places.records.readNetwork();
  if (remembered !== undefined && isPinnedNamespace(places.networkPin)) return remembered;
  const used = usedPrefixes(routes);
  const preferred = remembered === undefined ? [] : [parsePrefix(remembered.subnet)];
  const candidates =
    options.subnet === undefined ? [...preferred, ...defaultSubnets] : [parsePrefix(options.subnet)];
  return {
    subnet: formatPrefix(planSubnet(candidates, used)),
    link: formatPrefix(planLink(options.engineId, used)),
    addressesReservedUntil: remembered?.addressesReservedUntil ?? 0,
    enabledForwarding: remembered?.enabledForwarding ?? false,
  };
}

function pinsIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

class KernelLocalNetwork implements LocalNetwork {
  readonly #options: LocalNetworkOptions;
  readonly #places: Places;
  readonly #wiring: Wiring;
  readonly #addresses: AddressPool;
  readonly #tables: PortTables;
  readonly #endpoints = new Map<string, EndpointState>();

  constructor(options: LocalNetworkOptions, places: Places, wiring: Wiring, record: NetworkRecord) {
    this.#options = options;
    this.#places = places;
    this.#wiring = wiring;
    const { hostTable, uplinkName } = places;
    const { logger } = options;
    const published = () =>
      [...this.#endpoints.values()].flatMap(({ record }) => (record.drained ? [] : [record]));
    this.#tables = new PortTables({ wiring, hostTable, uplinkName, published, logger });
    this.#addresses = new AddressPool({
      subnet: parsePrefix(record.subnet),
      reservedUntil: record.addressesReservedUntil,
      saveReservation: (addressesReservedUntil) =>
        places.records.writeNetwork({ ...record, addressesReservedUntil }),
    });
  }

  /** Takes over complete endpoints, removes the rest, and writes the tables anew from what remains. */
  adopt(): void {
    const links = this.#wiring.endpointLinks();
    for (const record of this.#places.records.readEndpoints()) {
      const address = addressOf(record);
      const pin = this.#namespaceOf(record);
      const isWhole = isPinnedNamespace(pin) && links.has(endpointLinkName(address));
      if (!isWhole) {
        this.#places.records.removeEndpoint(record.id);
        continue;
      }
      links.delete(endpointLinkName(address));
      this.#addresses.adopt(address);
      this.#endpoints.set(record.id, { record, held: this.#holdAgain(record) });
    }
    for (const pin of pinsIn(this.#places.namespacesDir)) {
      if (pin !== NETWORK_PIN && !this.#endpoints.has(pin)) removeNamespace(this.#pinOf(pin));
    }
    // In a namespace of somebody else, a link does not go with a pin.
    for (const name of links) if (ENDPOINT_LINK_PATTERN.test(name)) this.#wiring.removeEndpointLink(name);
    this.#writeTables();
    this.#wiring.configureConnectionTracking();
  }

  async attach(request: EndpointRequest): Promise<Endpoint> {
    if (!ENDPOINT_ID_PATTERN.test(request.id) || request.id === NETWORK_PIN) {
      throw invalidField('id', `"${request.id}" cannot name an endpoint`);
    }
    const existing = this.#endpoints.get(request.id);
    if (existing !== undefined) return this.#describe(existing.record);
    const { namespacePath } = request;
    if (namespacePath !== undefined && !isPinnedNamespace(namespacePath)) {
      throw new SwarmError('not-found', `namespacePath: nothing is pinned at ${namespacePath}`);
    }
    for (const port of request.ports) this.#refuseUsedPort(port);
    if (request.ports.length > 0) this.#adoptLateIpv6();
    const held = holdAllPublished(request.ports, this.#isIpv6Published);
    try {
      const ports = request.ports.map((port, index) => ({ ...port, publishedPort: held[index]!.port }));
      const address = this.#wire(request);
      const ipv6Address = this.#wiring.ipv6AddressOf(address);
      const own = {
        id: request.id,
        address: formatIpv4(address),
        ...(ipv6Address && { ipv6Address: addressText(ipv6Address) }),
        ports,
        drained: false,
      };
      const state = { record: namespacePath === undefined ? own : { ...own, namespacePath }, held };
      this.#places.records.writeEndpoint(state.record);
      this.#endpoints.set(request.id, state);
      this.#tables.publish(state.record);
      return this.#describe(state.record);
    } catch (error) {
      if (this.#endpoints.has(request.id)) this.#remove(request.id);
      else for (const hold of held) hold[Symbol.dispose]();
      throw error;
    }
  }

  async drain(id: string): Promise<void> {
    this.#drain(id);
  }

  async detach(id: string): Promise<void> {
    this.#remove(id);
  }

  async list(): Promise<Endpoint[]> {
    return [...this.#endpoints.values()].map(({ record }) => this.#describe(record));
  }

  repair(): boolean {
    if (this.#adoptLateIpv6()) return true;
    if (this.#tables.areRight) return false;
    this.#options.logger.warn({}, 'repairing the firewall tables of the local network');
    this.#writeTables();
    return true;
  }

  async destroy(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await destroyLocalNetwork(this.#options);
  }

  /** Lets go of the network, which goes on working without this process. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { held } of this.#endpoints.values()) for (const hold of held) hold[Symbol.dispose]();
    this.#endpoints.clear();
    this.#wiring[Symbol.dispose]();
  }

  #pinOf(id: string): string {
    return join(this.#places.namespacesDir, id);
  }

  #namespaceOf({ id, namespacePath }: Pick<EndpointRecord, 'id' | 'namespacePath'>): string {
    return namespacePath ?? this.#pinOf(id);
  }

  #layoutOf(request: EndpointRequest, address: number): EndpointLayout {
    const ipv6Address = this.#wiring.ipv6AddressOf(address);
    const layout = {
      id: request.id,
      namespacePath: this.#namespaceOf(request),
      address,
      ...(ipv6Address && { ipv6Address }),
      madeNamespace: request.madeNamespace,
    };
    if (request.namespacePath === undefined) return layout;
    const udpPorts = request.ports
      .filter(({ protocol }) => protocol === 'udp')
      .map((port) => port.targetPort);
    return { ...layout, further: { isDefaultRoute: request.isDefaultRoute === true, udpPorts } };
  }

  #describe(record: EndpointRecord): Endpoint {
    return {
      id: record.id,
      namespacePath: this.#namespaceOf(record),
      address: record.address,
      ...(record.ipv6Address !== undefined && { ipv6Address: record.ipv6Address }),
      ports: record.ports,
      resolvConf: planResolvConf(readResolvConfSources()),
    };
  }

  /** The endpoint's address. */
  #wire(request: EndpointRequest): number {
    for (let attempt = 0; attempt < WIRING_ATTEMPTS_MAX; attempt++) {
      const address = this.#addresses.allocate();
      let isWired = false;
      try {
        isWired = this.#wiring.wire(this.#layoutOf(request, address));
      } finally {
        if (!isWired) this.#addresses.release(address);
      }
      if (isWired) return address;
    }
    throw new SwarmError(
      'resource-exhausted',
      'the kernel still holds the links of endpoints that are gone',
      {
        hint: 'A process that outlived its container keeps its network namespace; lsns -t net shows it.',
      },
    );
  }

  #drain(id: string): void {
    const state = this.#endpoints.get(id);
    if (state === undefined || state.record.drained) return;
    state.record = { ...state.record, drained: true };
    this.#places.records.writeEndpoint(state.record);
    this.#tables.unpublish(state.record);
  }

  /** Every step can be repeated; the endpoint is forgotten when all are done. */
  #remove(id: string): void {
    const state = this.#endpoints.get(id);
    if (state === undefined) return;
    this.#drain(id);
    this.#places.records.removeEndpoint(id);
    const endpoint = this.#layoutOf(state.record, addressOf(state.record));
    this.#wiring.unwire(endpoint);
    this.#tables.forgetConnections(state.record);
    this.#addresses.release(endpoint.address);
    this.#endpoints.delete(id);
    for (const hold of state.held) hold[Symbol.dispose]();
  }

  /** IPv6 that came to the host after the network was opened, for endpoints from now on. False when there is none. */
  #adoptLateIpv6(): boolean {
    if (!this.#wiring.lacksIpv6) return false;
    this.#wiring.configureNetwork();
    this.#writeTables();
    return true;
  }

  #writeTables(): void {
    this.#tables.write();
    if (this.#isIpv6Published) enableForwarding('ipv6', this.#options.runDir, this.#options.logger);
  }

  get #isIpv6Published(): boolean {
    return this.#wiring.uplinkAddress('ipv6') !== undefined;
  }

  /** Another endpoint may have a port without holding it: see #holdAgain. */
  #refuseUsedPort({ protocol, publishedPort }: PortConfig): void {
    for (const { record } of this.#endpoints.values()) {
      const isUsed = record.ports.some(
        (port) => port.protocol === protocol && port.publishedPort === publishedPort,
      );
      if (isUsed) throw portInUse(protocol, publishedPort);
    }
  }

  /** A port that somebody took while no process held it does not take the endpoint down. */
  #holdAgain(record: EndpointRecord): HostPortHold[] {
    return record.ports.flatMap((port) => {
      try {
        return [holdPublished(port, this.#isIpv6Published)];
      } catch (error) {
        if (!isTaken(error)) throw error;
        const facts = { 'container.id': record.id, port: port.publishedPort, protocol: port.protocol };
        this.#options.logger.warn(facts, 'a published port is also used by a process of this node');
        return [];
      }
    });
  }
}

function addressOf(record: EndpointRecord): number {
  return defined(parseIpv4(record.address), `endpoint ${record.id} has address "${record.address}"`);
}
