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
import { deleteConnections } from '../linux/conntrack.ts';
import { SystemCallError } from '../linux/libc.ts';
import { isPinnedNamespace, removeNamespace, startThreadPool } from '../linux/namespace.ts';
import type { NetlinkMessage } from '../linux/netlink.ts';
import { NetlinkSocket, netlinkProtocols } from '../linux/netlink-socket.ts';
import { deleteTable } from '../linux/nftables.ts';
import {
  addElements,
  deleteElements,
  portField,
  protocolPortKey,
  type SetElement,
} from '../linux/nftables-maps.ts';
import { readNetworkSetting, writeNetworkSetting } from '../linux/sysctl.ts';
import { AddressPool } from './address-pool.ts';
import { outgoingMtu, usedPrefixes } from './host-survey.ts';
import { formatIpv4, formatPrefix, ipv4Bytes, parseIpv4, parsePrefix } from './ipv4.ts';
import type { Endpoint, EndpointRequest, Network } from './network.ts';
import { type HeldPort, holdPort, portInUse, protocolNumbers, releasePort } from './port-holder.ts';
import { type EndpointRecord, type NetworkRecord, Records } from './records.ts';
import { planResolvConf, readResolvConfSources } from './resolv-conf.ts';
import {
  hostRuleset,
  hostTableName,
  isHostTableRight,
  NETWORK_TABLE,
  networkRuleset,
  PUBLISHED_PORTS_MAP,
} from './rulesets.ts';
import { defaultSubnets, planLink, planSubnet } from './subnet-choice.ts';
import { type EndpointLayout, endpointLinkName, linksOf, removeLink, Wiring } from './wiring.ts';

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
const UPLINK_PREFIX = 'tsu-';
/** An interface name has 15 characters. */
const ENGINE_ID_PATTERN = /^[a-z0-9]{1,11}$/;
const ENDPOINT_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const ENDPOINT_LINK_PATTERN = /^v[0-9a-f]{8}$/;
/** Addresses whose former link is still being freed, before one that is free. */
const WIRING_ATTEMPTS_MAX = 64;
const ENOENT = 2;

interface EndpointState {
  record: EndpointRecord;
  held: readonly HeldPort[];
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
  try {
    tables.executeBatch([deleteTable(places.hostTable)]);
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errno !== ENOENT) throw error;
  }
  const isLast = !linksOf(routes).some((link) => link.name.startsWith(UPLINK_PREFIX));
  if (isLast && places.records.readNetwork()?.enabledForwarding === true) {
    writeNetworkSetting('ipv4/ip_forward', 0);
  }
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
  readonly #networkAddress: Buffer;
  readonly #endpoints = new Map<string, EndpointState>();

  constructor(options: LocalNetworkOptions, places: Places, wiring: Wiring, record: NetworkRecord) {
    this.#options = options;
    this.#places = places;
    this.#wiring = wiring;
    this.#networkAddress = ipv4Bytes(parsePrefix(record.link).base + 1);
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
    const held = holdAll(request.ports);
    try {
      const ports = request.ports.map((port, index) => ({ ...port, publishedPort: held[index]!.port }));
      const address = formatIpv4(this.#wire(request));
      const own = { id: request.id, address, ports, drained: false };
      const state = { record: namespacePath === undefined ? own : { ...own, namespacePath }, held };
      this.#places.records.writeEndpoint(state.record);
      this.#endpoints.set(request.id, state);
      this.#publish(state.record);
      return this.#describe(state.record);
    } catch (error) {
      if (this.#endpoints.has(request.id)) this.#remove(request.id);
      else held.forEach(releasePort);
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
    const { hostTable, uplinkName } = this.#places;
    const published = [...this.#endpoints.values()].filter(({ record }) => !record.drained);
    const count = published.flatMap(({ record }) => this.#hostElements(record)).length;
    if (isHostTableRight(this.#wiring.hostTables, hostTable, uplinkName, count)) return false;
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
    for (const { held } of this.#endpoints.values()) held.forEach(releasePort);
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
    const layout = { id: request.id, namespacePath: this.#namespaceOf(request), address };
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
    this.#unpublish(state.record);
  }

  /** Every step can be repeated; the endpoint is forgotten when all are done. */
  #remove(id: string): void {
    const state = this.#endpoints.get(id);
    if (state === undefined) return;
    this.#drain(id);
    this.#places.records.removeEndpoint(id);
    const endpoint = this.#layoutOf(state.record, addressOf(state.record));
    this.#wiring.unwire(endpoint);
    this.#forgetConnections(state.record);
    this.#addresses.release(endpoint.address);
    this.#endpoints.delete(id);
    state.held.forEach(releasePort);
  }

  /** Inside first, so that the host never sends to a port that the network does not know yet. */
  #publish(record: EndpointRecord): void {
    if (record.ports.length === 0) return;
    this.#changeTables(
      addElements(NETWORK_TABLE, PUBLISHED_PORTS_MAP, this.#networkElements(record)),
      addElements(this.#places.hostTable, PUBLISHED_PORTS_MAP, this.#hostElements(record)),
    );
    // A UDP client that was already sending would go on to reach nothing: its flow is known as not translated.
    this.#wiring.hostTables.execute(
      record.ports.flatMap(({ protocol, publishedPort }) =>
        protocol === 'udp' ? [forgetFlowsTo(protocol, publishedPort)] : [],
      ),
    );
  }

  #unpublish(record: EndpointRecord): void {
    if (record.ports.length === 0) return;
    const keys = record.ports.map(portKey);
    this.#changeTables(
      deleteElements(NETWORK_TABLE, PUBLISHED_PORTS_MAP, keys),
      deleteElements(this.#places.hostTable, PUBLISHED_PORTS_MAP, keys),
    );
  }

  /** When the tables are not what they should be (`nft flush ruleset`), they are written anew. */
  #changeTables(network: readonly NetlinkMessage[], host: readonly NetlinkMessage[]): void {
    try {
      this.#wiring.networkTables.executeBatch(network);
      this.#wiring.hostTables.executeBatch(host);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      this.#options.logger.warn(
        { error: error.message },
        'repairing the firewall tables of the local network',
      );
      this.#writeTables();
    }
  }

  /** Each table is replaced in one transaction: traffic sees the old one or the new one. */
  #writeTables(): void {
    const published = [...this.#endpoints.values()].filter(({ record }) => !record.drained);
    const networkElements = published.flatMap(({ record }) => this.#networkElements(record));
    const hostElements = published.flatMap(({ record }) => this.#hostElements(record));
    this.#wiring.networkTables.executeBatch(networkRuleset(networkElements));
    const { hostTable, uplinkName } = this.#places;
    this.#wiring.hostTables.executeBatch(hostRuleset(hostTable, uplinkName, hostElements));
  }

  #forgetConnections(record: EndpointRecord): void {
    const source = ipv4Bytes(addressOf(record));
    this.#wiring.networkTables.execute([
      deleteConnections('reply', { source }),
      deleteConnections('original', { source }),
    ]);
    this.#wiring.hostTables.execute(
      record.ports.map(({ protocol, publishedPort }) =>
        deleteConnections('reply', {
          source: this.#networkAddress,
          protocolNumber: protocolNumbers[protocol],
          sourcePort: publishedPort,
        }),
      ),
    );
  }

  #hostElements(record: EndpointRecord): SetElement[] {
    return record.ports.map((port) => ({
      key: portKey(port),
      value: Buffer.concat([this.#networkAddress, portField(port.publishedPort)]),
    }));
  }

  #networkElements(record: EndpointRecord): SetElement[] {
    const address = ipv4Bytes(addressOf(record));
    return record.ports.map((port) => ({
      key: portKey(port),
      value: Buffer.concat([address, portField(port.targetPort)]),
    }));
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
  #holdAgain(record: EndpointRecord): HeldPort[] {
    return record.ports.flatMap(({ protocol, publishedPort }) => {
      try {
        return [holdPort(protocol, publishedPort)];
      } catch (error) {
        if (!(error instanceof SwarmError) || error.code !== 'failed-precondition') throw error;
        const facts = { 'container.id': record.id, port: publishedPort, protocol };
        this.#options.logger.warn(facts, 'a published port is also used by a process of this node');
        return [];
      }
    });
  }
}

/** All or none. */
function holdAll(ports: readonly PortConfig[]): HeldPort[] {
  const held: HeldPort[] = [];
  try {
    for (const port of ports) held.push(holdPort(port.protocol, port.publishedPort));
    return held;
  } catch (error) {
    held.forEach(releasePort);
    throw error;
  }
}

function forgetFlowsTo(protocol: PortConfig['protocol'], destinationPort: number): NetlinkMessage {
  return deleteConnections('original', { protocolNumber: protocolNumbers[protocol], destinationPort });
}

function portKey({ protocol, publishedPort }: PortConfig): Buffer {
  return protocolPortKey(protocolNumbers[protocol], publishedPort);
}

function addressOf(record: EndpointRecord): number {
  return defined(parseIpv4(record.address), `endpoint ${record.id} has address "${record.address}"`);
}
