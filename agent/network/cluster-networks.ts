// The networks of this node's tasks: the node's own for those that ask for no other, networks of the cluster for the rest.
// What the managers say goes into the book, which outlives this process: names are served and tasks are reached also
// when no manager answers.

import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, SwarmError } from '../../core/errors.ts';
import {
  type Assignments,
  emptyAssignments,
  type NetworkAnswer,
  type NetworkEndpoint,
  type NetworkQuestion,
} from '../../proto/generated/dispatcher.ts';
import type { Logger } from '../../rpc/logger.ts';
import { createNamespace, isPinnedNamespace, removeNamespace, startThreadPool } from '../linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../linux/netlink-socket.ts';
import { setLinkUp } from '../linux/rtnetlink.ts';
import { examineNetworks } from './examine-network.ts';
import { familyOf } from './ip-bytes.ts';
import type { Endpoint, Network, TaskNetworkRequest, TaskNetworks } from './network.ts';
import { NetworkBook } from './network-book.ts';
import { isOfParent } from './network-facts.ts';
import { NetworkFollowers } from './network-followers.ts';
import { NetworkMemory } from './network-memory.ts';
import { openOverlay, pinnedNetworks } from './overlay/kernel-overlay.ts';
import type { Drift, Overlay } from './overlay/overlay.ts';
import { attachToParent } from './parent-network.ts';
import { planResolvConf, readResolvConfSources } from './resolv-conf.ts';
import { TaskNameServers } from './task-name-servers.ts';
import { destroyTunnel, TUNNELLED_PORT, Tunnel, tunnelKeyOf } from './tunnel/tunnel.ts';
import { LOOPBACK_INDEX } from './wiring.ts';

export interface ClusterNetworksOptions {
  readonly nodeId: string;
  /** The network of tasks that ask for no other. */
  readonly local: Network;
  /** For what ends with the machine's uptime: in memory, since what is written there holds up the networks. */
  readonly runDir: string;
  readonly engineId: string;
  /** The address of this node that other nodes send to. */
  readonly dataPathAddress: string;
  /** Told why networks do not work; empty when they do again. */
  readonly onProblem: (problem: string) => void;
  /** The node's key has changed: the managers are to hear of it. */
  readonly onTunnelKey: () => void;
  readonly onRepair: (drift: readonly Drift[]) => void;
  readonly logger: Logger;
}

const PINS_FOLDER = 'task-netns';
const NAME_SERVERS_FOLDER = 'task-dns';
const MEMORY_FILE = 'cluster-networks';
/** Of this process and of all that it starts. */
const HOST_NAMESPACE = '/proc/self/ns/net';
/** At least this long between a task's last new connection and its end: what is under way arrives. */
const DRAIN_MS = 200;
/** What still flows is ended this long before. */
const FLOWS_END_BEFORE_MS = 50;
/** And at most. */
const DRAINED_LIMIT_MS = 5_000;
const AUDIT_PERIOD_MS = 30_000;
const KEY_LIFE_MS = 12 * 3_600_000;

export class ClusterNetworks implements TaskNetworks {
  readonly #options: ClusterNetworksOptions;
  readonly #book: NetworkBook;
  readonly #memory: NetworkMemory;
  readonly #followers: NetworkFollowers;
  /** Task → networks in which it has something. */
  readonly #attached = new Map<string, Set<string>>();
  readonly #nameServers: TaskNameServers;
  /** For networks that are sent in clear, and for encrypted ones. */
  readonly #overlays = new Map<boolean, Promise<Overlay>>();
  #tunnel: Tunnel | undefined;
  /** Tasks that wait until no node sends them connections. */
  readonly #draining = new Map<string, () => void>();
  /** Tasks that no node sends connections to any more, and that are not gone yet. */
  readonly #drained = new Set<string>();
  #rotationTimer: NodeJS.Timeout | undefined;
  #auditTimer: NodeJS.Timeout | undefined;

  private constructor(options: ClusterNetworksOptions) {
    this.#options = options;
    this.#nameServers = new TaskNameServers(join(options.runDir, NAME_SERVERS_FOLDER));
    this.#book = new NetworkBook(options.nodeId);
    this.#memory = new NetworkMemory(this.#memoryFile, options.logger);
    const overlay = (isEncrypted: boolean) => this.#openOverlay(isEncrypted);
    this.#followers = new NetworkFollowers({ ...options, book: this.#book, overlay });
  }

  /** Takes up what the last process left. */
  static async open(options: ClusterNetworksOptions): Promise<ClusterNetworks> {
    await startThreadPool();
    const networks = new ClusterNetworks(options);
    mkdirSync(networks.#pins, { recursive: true });
    for (const said of networks.#memory.recall()) networks.#book.hear(said);
    for (const id of networks.#book.ids) networks.#followers.follow(id);
    await networks.#followers.settled();
    // Its last process may have been killed before it did.
    void networks.#endFlows(networks.#book.takeStopped());
    for (const overlay of networks.#overlays.values())
      for (const { networkId, endpoints } of (await (await overlay.catch(() => undefined))?.list()) ?? [])
        for (const { id } of endpoints) networks.#noteAttached(taskOf(id), networkId);
    return networks;
  }

  async hear(assignments: Assignments): Promise<void> {
    // A daemon that was killed while it took a network down has forgotten it.
    if (assignments.complete) this.#followForgotten(assignments);
    const changed = this.#book.hear(assignments);
    this.#memory.note(assignments, () => this.#book.memory());
    for (const id of changed) this.#followers.follow(id);
    const stopped = this.#book.takeStopped();
    await this.#followers.settled();
    await this.#endFlows(stopped);
  }

  #followForgotten({ networks }: Assignments): void {
    const told = new Set(networks.map(({ networkId }) => networkId));
    for (const isEncrypted of [false, true]) {
      const { runDir } = isEncrypted ? encrypted(this.#options) : this.#options;
      for (const id of pinnedNetworks(runDir)) if (!told.has(id)) this.#followers.follow(id, isEncrypted);
    }
  }

  async attach(request: TaskNetworkRequest): Promise<Endpoint> {
    const { id, ports, attachments, instead } = request;
    if (instead === 'host') {
      // Containers on the host's network ask whom the host asks, also on its loopback.
      const [resolvConf = ''] = readResolvConfSources();
      return { id, namespacePath: HOST_NAMESPACE, address: '', ports, resolvConf };
    }
    if (instead === undefined && attachments.length === 0) return this.#options.local.attach(request);
    for (const { networkId } of attachments) await this.#followers.ready(networkId);
    this.#nameServers.set(id, request.nameServers ?? []);
    const namespacePath = this.#pin(id);
    if (!isPinnedNamespace(namespacePath)) makeNamespace(namespacePath, request.madeNamespace);
    const wayOut = this.#wayOut(request);
    let resolvConf = '';
    let published = ports;
    for (const { networkId, addresses } of attachments) {
      const network = this.#book.get(networkId);
      const link = { ...addressesByFamily(addresses), namespacePath, isDefaultRoute: networkId === wayOut };
      if (network !== undefined && isOfParent(network)) attachToParent({ ...link, network });
      else {
        const overlay = await this.#openOverlay(network?.spec.encrypted === true);
        this.#noteAttached(id, networkId);
        const attached = await overlay.attach({ ...link, id: endpointId(id, networkId), networkId });
        resolvConf ||= attached.resolvConf;
      }
    }
    resolvConf ||= planResolvConf(readResolvConfSources());
    if (ports.length > 0 && attachments.length > 0) {
      const isDefaultRoute = wayOut === undefined;
      published = (await this.#options.local.attach({ id, ports, namespacePath, isDefaultRoute })).ports;
    }
    const own = addressesByFamily(attachments[0]?.addresses ?? []);
    return { id, namespacePath, ...own, ports: published, resolvConf };
  }

  async drain(id: string, drainMs: number, signal: AbortSignal): Promise<void> {
    await this.#options.local.drain(id);
    for (const networkId of this.#book.leave(id)) this.#followers.follow(networkId);
    const isKnown = this.#attached.has(id) && this.#book.hasServed(id);
    if (drainMs === 0 && !isKnown) return;
    const whole = delay(wholeDrain(drainMs), undefined, { signal });
    await Promise.all([whole, isKnown && this.#untilOthersKnow(id)]).catch((error) => {
      if (!signal.aborted) throw error;
    });
  }

  /** Of tasks that serve no more. */
  async #endFlows(stopped: ReturnType<NetworkBook['takeStopped']>): Promise<void> {
    await Promise.all(
      stopped.flatMap(([id, endpoints]) => endpoints.map((one) => this.#endFlowsOf(id, one))),
    );
  }

  /**
   * UDP has no end of a connection that could be waited for, and a client that uses a port again is taken for the client
   * before: what still goes to a task that drains goes elsewhere before the task ends. Resolves then, or at once where the
   * task has a drain time, which its flows have as well.
   */
  async #endFlowsOf(networkId: string, { addresses, drainMs }: NetworkEndpoint): Promise<void> {
    const ending = delay(wholeDrain(drainMs) - FLOWS_END_BEFORE_MS, undefined, { ref: false })
      .then(() => this.#overlays.get(this.#book.get(networkId)?.spec.encrypted === true))
      .then((overlay) => overlay?.endFlows(networkId, addresses))
      .catch((error) => this.#options.logger.warn({ error: messageOf(error) }, 'flows not ended'));
    if (drainMs === 0) await ending;
  }

  drained(taskIds: readonly string[]): void {
    for (const id of taskIds) {
      this.#drained.add(id);
      this.#draining.get(id)?.();
    }
  }

  /** A manager that is busy, or a node that does not answer, must not keep the task from ending for long. */
  async #untilOthersKnow(id: string): Promise<void> {
    const known = Promise.withResolvers<void>();
    this.#draining.set(id, known.resolve);
    if (this.#drained.has(id)) known.resolve();
    const isKnown = await Promise.race([known.promise.then(() => true), delay(DRAINED_LIMIT_MS, false)]);
    this.#draining.delete(id);
    if (!isKnown)
      this.#options.logger.info(
        { 'task.id': id, limitMs: DRAINED_LIMIT_MS },
        'not all nodes have said that they send a task nothing more; it ends',
      );
  }

  async detach(id: string): Promise<void> {
    await this.#options.local.detach(id);
    this.#drained.delete(id);
    this.#book.forget(id);
    const networkIds = this.#attached.get(id);
    if (networkIds !== undefined) {
      // First out of the services, then out of the kernel.
      for (const networkId of this.#book.leave(id)) this.#followers.follow(networkId);
      await this.#followers.settled();
      for (const opening of this.#overlays.values()) {
        const overlay = await opening.catch(() => undefined);
        for (const networkId of networkIds) await overlay?.detach(endpointId(id, networkId));
      }
      this.#attached.delete(id);
    }
    this.#nameServers.forget(id);
    removeNamespace(this.#pin(id));
  }

  async list(): Promise<string[]> {
    const local = await this.#options.local.list();
    return [...new Set([...local.map(({ id }) => id), ...this.#attached.keys(), ...readdirSync(this.#pins)])];
  }

  /** Empty while this node has no encrypted network. */
  get tunnelKey(): string {
    return this.#tunnel?.publicKey ?? tunnelKeyOf(this.#options) ?? '';
  }

  /** undefined: this node has no network of the cluster. */
  get dataPathPort(): number | undefined {
    return this.#book.dataPathPort || undefined;
  }

  /** Compares every network with the kernel, and mends. */
  audit(): Promise<void> {
    return this.#followers.audit();
  }

  examine(question: NetworkQuestion): Promise<NetworkAnswer> {
    return examineNetworks(
      {
        book: this.#book,
        overlay: (isEncrypted) => this.#openOverlay(isEncrypted),
        ready: (networkId) => this.#followers.ready(networkId),
        namespaceOf: (taskId) => this.#pin(taskId),
        onRepair: this.#options.onRepair,
      },
      question,
    );
  }

  /** Takes the networks off this node: it leaves the cluster, and its tasks are gone. */
  async destroy(): Promise<void> {
    await this.hear({ ...emptyAssignments, complete: true });
    await this.stop();
    destroyTunnel(this.#options);
    rmSync(this.#memoryFile, { force: true });
  }

  /** Lets go of everything; what is in the kernel works on. */
  async stop(): Promise<void> {
    clearInterval(this.#auditTimer);
    await this.#followers.close();
    for (const opening of this.#overlays.values()) {
      const overlay = await opening.catch(() => undefined);
      await overlay?.[Symbol.asyncDispose]();
    }
    clearInterval(this.#rotationTimer);
    this.#tunnel?.[Symbol.dispose]();
  }

  get #pins(): string {
    return join(this.#options.runDir, PINS_FOLDER);
  }

  #pin(taskId: string): string {
    return join(this.#pins, taskId);
  }

  get #memoryFile(): string {
    return join(this.#options.runDir, MEMORY_FILE);
  }

  /** The first network that leads out; the ingress network only when there is no other. */
  #wayOut({ attachments }: TaskNetworkRequest): string | undefined {
    const leadsOut = attachments.flatMap(({ networkId }) => {
      const network = this.#book.get(networkId);
      return network === undefined || network.spec.internal ? [] : [network];
    });
    return (leadsOut.find(({ spec }) => !spec.ingress) ?? leadsOut[0])?.id;
  }

  /** With the first network of its kind, and again when that failed. */
  async #openOverlay(isEncrypted: boolean): Promise<Overlay> {
    if (isEncrypted) await this.#keepTunnel();
    const opening =
      this.#overlays.get(isEncrypted) ??
      (isEncrypted ? this.#openEncryptedOverlay() : this.#openPlainOverlay()).catch((error) => {
        this.#overlays.delete(isEncrypted);
        throw error;
      });
    this.#overlays.set(isEncrypted, opening);
    this.#auditTimer ??= setInterval(() => void this.#followers.audit(), AUDIT_PERIOD_MS).unref();
    return opening;
  }

  #openPlainOverlay(): Promise<Overlay> {
    const { runDir, engineId, dataPathAddress, logger } = this.#options;
    const { dataPathPort } = this.#book;
    return openOverlay({
      runDir,
      engineId,
      dataPathAddress,
      logger,
      nameServersOf: (namespacePath) => this.#nameServers.of(namespacePath),
      ...(dataPathPort > 0 && { dataPathPort }),
    });
  }

  /** Its VXLANs are between addresses inside the tunnel. */
  #openEncryptedOverlay(): Promise<Overlay> {
    const { logger } = this.#options;
    const dataPathAddress = this.#book.own?.tunnelAddress ?? '';
    return openOverlay({
      ...encrypted(this.#options),
      dataPathAddress,
      logger,
      nameServersOf: (namespacePath) => this.#nameServers.of(namespacePath),
      dataPathPort: TUNNELLED_PORT,
    });
  }

  /** Brings the tunnel to what the managers say of the nodes. Throws `unavailable` until they know this node's key. */
  async #keepTunnel(): Promise<void> {
    if (this.#tunnel === undefined) {
      this.#tunnel = await Tunnel.open(this.#options);
      this.#rotationTimer = setInterval(() => this.#renewKey(), KEY_LIFE_MS).unref();
    }
    const { own, otherNodes } = this.#book;
    if (own?.tunnelKey !== this.#tunnel.publicKey) this.#options.onTunnelKey();
    const address = own?.tunnelAddress ?? '';
    if (address === '')
      throw new SwarmError(
        'unavailable',
        'the managers have not given this node its place in the tunnel yet',
      );
    const peers = otherNodes
      .filter((node) => node.tunnelKey !== '' && node.tunnelAddress !== '')
      .map((node) => ({
        publicKey: node.tunnelKey,
        endpoint: node.dataPathAddress,
        address: node.tunnelAddress,
      }));
    await this.#tunnel.apply(address, peers);
  }

  #renewKey(): void {
    this.#tunnel?.renewKey();
    for (const id of this.#book.ids) if (this.#book.get(id)?.spec.encrypted) this.#followers.follow(id);
  }

  #noteAttached(taskId: string, networkId: string): void {
    const networkIds = this.#attached.get(taskId) ?? new Set();
    this.#attached.set(taskId, networkIds.add(networkId));
  }
}

/** Takes what is left of a node's cluster networks off the machine. */
export async function destroyClusterNetworks(
  options: Pick<ClusterNetworksOptions, 'runDir' | 'engineId' | 'logger'>,
): Promise<void> {
  const pins = join(options.runDir, PINS_FOLDER);
  mkdirSync(pins, { recursive: true });
  for (const location of [options, { ...options, ...encrypted(options) }]) {
    await using overlay = await openOverlay({ ...location, dataPathAddress: '127.0.0.1' });
    for (const { networkId } of await overlay.list()) await overlay.remove(networkId);
  }
  destroyTunnel(options);
  for (const name of readdirSync(pins)) removeNamespace(join(pins, name));
}

/** Encrypted networks have folders, links and tables of their own. */
function encrypted({ runDir, engineId }: Pick<ClusterNetworksOptions, 'runDir' | 'engineId'>) {
  return { runDir: join(runDir, 'encrypted'), engineId: `${engineId}e` };
}

/** An attachment has one of each family of its network. */
function addressesByFamily(addresses: readonly string[]): { address: string; ipv6Address?: string } {
  const address = addresses.find((each) => familyOf(each) === 'ipv4') ?? '';
  const ipv6Address = addresses.find((each) => familyOf(each) === 'ipv6');
  return ipv6Address === undefined ? { address } : { address, ipv6Address };
}

function makeNamespace(path: string, made: string | undefined): void {
  const configure = () => {
    using routes = new NetlinkSocket(netlinkProtocols.route);
    routes.execute([setLinkUp(LOOPBACK_INDEX, true)]);
  };
  createNamespace(path, configure, made);
}

/** Unique on the node, and the task's again from the name alone. */
function endpointId(taskId: string, networkId: string): string {
  return `${taskId}.${networkId}`;
}

function taskOf(endpoint: string): string {
  return endpoint.split('.')[0] ?? '';
}

/** From the last new connection of a task to its stop signal. */
function wholeDrain(drainMs: number): number {
  return Math.max(DRAIN_MS, drainMs);
}
