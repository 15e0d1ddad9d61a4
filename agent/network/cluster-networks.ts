// The networks of this node's tasks: the node's own for those that ask for no other, networks of the cluster for the rest.
// What the managers say goes into the book, which outlives this process: names are served and tasks are reached also
// when no manager answers.

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../core/errors.ts';
import {
  type Assignments,
  AssignmentsCodec,
  emptyAssignments,
  type NetworkAnswer,
  type NetworkQuestion,
} from '../../proto/generated/dispatcher.ts';
import { decode, encode } from '../../proto/wire.ts';
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
import { openOverlay } from './overlay/kernel-overlay.ts';
import type { Drift, Overlay } from './overlay/overlay.ts';
import { attachToParent } from './parent-network.ts';
import { planResolvConf, readResolvConfSources } from './resolv-conf.ts';
import { LOOPBACK_INDEX } from './wiring.ts';

export interface ClusterNetworksOptions {
  readonly nodeId: string;
  /** The network of tasks that ask for no other. */
  readonly local: Network;
  /** For what ends with the machine's uptime. */
  readonly runDir: string;
  /** For what the next process is to know before it hears of a manager. */
  readonly stateDir: string;
  readonly engineId: string;
  /** The address of this node that other nodes send to. */
  readonly dataPathAddress: string;
  /** Told why networks do not work; empty when they do again. */
  readonly onProblem: (problem: string) => void;
  readonly onRepair: (drift: readonly Drift[]) => void;
  readonly logger: Logger;
}

const PINS_FOLDER = 'task-netns';
const MEMORY_FILE = 'cluster-networks';
const MEMORY_DELAY_MS = 1_000;
/** Of this process and of all that it starts. */
const HOST_NAMESPACE = '/proc/self/ns/net';
/** Long enough for all nodes to hear that a task takes no more connections: managers collect changes for 10 ms. */
const DRAIN_MS = 250;
const AUDIT_PERIOD_MS = 30_000;

export class ClusterNetworks implements TaskNetworks {
  readonly #options: ClusterNetworksOptions;
  readonly #book: NetworkBook;
  readonly #followers: NetworkFollowers;
  /** Task → networks in which it has something. */
  readonly #attached = new Map<string, Set<string>>();
  #overlay: Promise<Overlay> | undefined;
  #memoryTimer: NodeJS.Timeout | undefined;
  #auditTimer: NodeJS.Timeout | undefined;

  private constructor(options: ClusterNetworksOptions) {
    this.#options = options;
    this.#book = new NetworkBook(options.nodeId);
    const overlay = () => this.#openOverlay();
    this.#followers = new NetworkFollowers({ ...options, book: this.#book, overlay });
  }

  /** Takes up what the last process left. */
  static async open(options: ClusterNetworksOptions): Promise<ClusterNetworks> {
    await startThreadPool();
    const networks = new ClusterNetworks(options);
    mkdirSync(networks.#pins, { recursive: true });
    const memory = networks.#recall();
    if (memory === undefined) return networks;
    networks.hear(memory);
    for (const { networkId, endpoints } of await (await networks.#openOverlay()).list())
      for (const { id } of endpoints) networks.#noteAttached(taskOf(id), networkId);
    return networks;
  }

  hear(assignments: Assignments): void {
    const changed = this.#book.hear(assignments);
    for (const id of changed) this.#followers.follow(id);
    if (changed.size > 0) this.#memoryTimer ??= setTimeout(() => this.#remember(), MEMORY_DELAY_MS);
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
    const namespacePath = this.#pin(id);
    if (!isPinnedNamespace(namespacePath)) makeNamespace(namespacePath);
    const wayOut = this.#wayOut(request);
    let resolvConf = '';
    let published = ports;
    for (const { networkId, addresses } of attachments) {
      const network = this.#book.get(networkId);
      const link = { ...addressesByFamily(addresses), namespacePath, isDefaultRoute: networkId === wayOut };
      if (network !== undefined && isOfParent(network)) attachToParent({ ...link, network });
      else {
        const overlay = await this.#openOverlay();
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

  async drain(id: string): Promise<void> {
    await this.#options.local.drain(id);
    if (!this.#attached.has(id)) return;
    const wasServing = this.#book.isServing(id);
    for (const networkId of this.#book.leave(id)) this.#followers.follow(networkId);
    if (wasServing) await delay(DRAIN_MS);
  }

  async detach(id: string): Promise<void> {
    await this.#options.local.detach(id);
    const networkIds = this.#attached.get(id);
    if (networkIds !== undefined) {
      // First out of the services, then out of the kernel.
      for (const networkId of this.#book.leave(id)) this.#followers.follow(networkId);
      await this.#followers.settled();
      const overlay = await this.#openOverlay();
      for (const networkId of networkIds) await overlay.detach(endpointId(id, networkId));
      this.#attached.delete(id);
    }
    removeNamespace(this.#pin(id));
  }

  async list(): Promise<string[]> {
    const local = await this.#options.local.list();
    return [...new Set([...local.map(({ id }) => id), ...this.#attached.keys(), ...readdirSync(this.#pins)])];
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
        overlay: () => this.#openOverlay(),
        ready: (networkId) => this.#followers.ready(networkId),
        namespaceOf: (taskId) => this.#pin(taskId),
        onRepair: this.#options.onRepair,
      },
      question,
    );
  }

  /** Takes the networks off this node: it leaves the cluster, and its tasks are gone. */
  async destroy(): Promise<void> {
    this.hear({ ...emptyAssignments, complete: true });
    await this.#followers.settled();
    await this.stop();
    rmSync(this.#memoryFile, { force: true });
  }

  /** Lets go of everything; what is in the kernel works on. */
  async stop(): Promise<void> {
    clearInterval(this.#auditTimer);
    await this.#followers.close();
    if (this.#memoryTimer !== undefined) this.#remember();
    const overlay = await this.#overlay?.catch(() => undefined);
    await overlay?.[Symbol.asyncDispose]();
  }

  get #pins(): string {
    return join(this.#options.runDir, PINS_FOLDER);
  }

  #pin(taskId: string): string {
    return join(this.#pins, taskId);
  }

  get #memoryFile(): string {
    return join(this.#options.stateDir, MEMORY_FILE);
  }

  /** The first network that leads out; the ingress network only when there is no other. */
  #wayOut({ attachments }: TaskNetworkRequest): string | undefined {
    const leadsOut = attachments.flatMap(({ networkId }) => {
      const network = this.#book.get(networkId);
      return network === undefined || network.spec.internal ? [] : [network];
    });
    return (leadsOut.find(({ spec }) => !spec.ingress) ?? leadsOut[0])?.id;
  }

  /** With the first network, and again when that failed. */
  #openOverlay(): Promise<Overlay> {
    const { runDir, engineId, dataPathAddress, logger } = this.#options;
    const dataPathPort = this.#book.dataPathPort;
    const open = async () => {
      const overlay = await openOverlay({
        runDir,
        engineId,
        dataPathAddress,
        logger,
        ...(dataPathPort > 0 && { dataPathPort }),
      });
      this.#auditTimer ??= setInterval(() => void this.#followers.audit(), AUDIT_PERIOD_MS).unref();
      return overlay;
    };
    this.#overlay ??= open().catch((error) => {
      this.#overlay = undefined;
      throw error;
    });
    return this.#overlay;
  }

  #noteAttached(taskId: string, networkId: string): void {
    const networkIds = this.#attached.get(taskId) ?? new Set();
    this.#attached.set(taskId, networkIds.add(networkId));
  }

  /** A lost or broken memory costs the time until a manager answers. */
  #recall(): Assignments | undefined {
    try {
      return decode(AssignmentsCodec, readFileSync(this.#memoryFile));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#options.logger.warn({ error: messageOf(error) }, 'cannot read what was known of the networks');
      return undefined;
    }
  }

  #remember(): void {
    clearTimeout(this.#memoryTimer);
    this.#memoryTimer = undefined;
    try {
      const fresh = `${this.#memoryFile}.new`;
      writeFileSync(fresh, encode(AssignmentsCodec, this.#book.memory()), { mode: 0o600 });
      renameSync(fresh, this.#memoryFile);
    } catch (error) {
      this.#options.logger.warn(
        { error: messageOf(error) },
        'cannot write down what is known of the networks',
      );
    }
  }
}

/** Takes what is left of a node's cluster networks off the machine. */
export async function destroyClusterNetworks(
  options: Pick<ClusterNetworksOptions, 'runDir' | 'engineId' | 'logger'>,
): Promise<void> {
  const pins = join(options.runDir, PINS_FOLDER);
  mkdirSync(pins, { recursive: true });
  await using overlay = await openOverlay({ ...options, dataPathAddress: '127.0.0.1' });
  for (const { networkId } of await overlay.list()) await overlay.remove(networkId);
  for (const name of readdirSync(pins)) removeNamespace(join(pins, name));
}

/** An attachment has one of each family of its network. */
function addressesByFamily(addresses: readonly string[]): { address: string; ipv6Address?: string } {
  const address = addresses.find((each) => familyOf(each) === 'ipv4') ?? '';
  const ipv6Address = addresses.find((each) => familyOf(each) === 'ipv6');
  return ipv6Address === undefined ? { address } : { address, ipv6Address };
}

function makeNamespace(path: string): void {
  createNamespace(path, () => {
    using routes = new NetlinkSocket(netlinkProtocols.route);
    routes.execute([setLinkUp(LOOPBACK_INDEX, true)]);
  });
}

/** Unique on the node, and the task's again from the name alone. */
function endpointId(taskId: string, networkId: string): string {
  return `${taskId}.${networkId}`;
}

function taskOf(endpoint: string): string {
  return endpoint.split('.')[0] ?? '';
}
