// What runs while this node is a member of a cluster: the agent, on a manager the manager process, and the renewal of the
// certificate. The cluster's news decide what the node is; they come one after the other.

import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Agent, type AgentOptions, startAgent } from '../agent/agent.ts';
import type { ClusterNetworks } from '../agent/network/cluster-networks.ts';
import { MemoryFiles } from '../agent/secrets/memory-files.ts';
import { parseHostPort } from '../core/addresses.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import {
  emptyNodeTrust,
  type NodeDescription,
  type NodeRole,
  type NodeTrust,
} from '../core/generated/objects.ts';
import type { Bootstrap } from '../manager/bootstrap.ts';
import type { EtcdSettings } from '../manager/etcd-log/settings.ts';
import { IdentityHolder } from '../manager/identity-holder.ts';
import { ManagerHealthService } from '../proto/generated/control.ts';
import type { ClusterNews } from '../proto/generated/dispatcher.ts';
import { MembershipService } from '../proto/generated/membership.ts';
import { type Channel, createClient, openChannel, openTlsChannel, withChannel } from '../rpc/client.ts';
import { clientCredentials, type TlsIdentity } from '../rpc/tls.ts';
import { CertificateFiles, trustOf } from './certificate-files.ts';
import { CertificateProcess } from './certificate-process.ts';
import { type DaemonConfig, defaultLogDriver } from './config.ts';
import { type Identity, writeIdentity } from './identity.ts';
import { nodeLog } from './log.ts';
import { chooseAddresses } from './machine.ts';
import { askManagers, CALL_LIMIT_MS, type Managers, requestCertificate } from './manager-calls.ts';
import { ManagerList } from './manager-list.ts';
import { superviseManager } from './manager-process.ts';
import { RenewalTimer } from './renewal-timer.ts';
import { systemClock } from './system-clock.ts';
import { logOpens } from './unlocking.ts';

export interface MembershipOptions extends Pick<AgentOptions, 'engine' | 'onHealthCheck'> {
  readonly config: DaemonConfig;
  readonly program: string;
  readonly openNetworks: OpenNetworks;
  readonly describe: (trust: NodeTrust, dataPathAddress: string) => Omit<NodeDescription, 'tunnelKey'>;
  readonly etcd: EtcdSettings | undefined;
  /** Told why something does not work, for the node's status; empty when it does again. */
  readonly onProblem: (
    subject: 'manager' | 'agent' | 'news' | 'certificate' | 'network',
    problem: string,
  ) => void;
}

/** The networks of the tasks of this node, as a member with this id and address. */
export type OpenNetworks = (member: {
  readonly nodeId: string;
  readonly dataPathAddress: string;
  readonly onProblem: (problem: string) => void;
  readonly onTunnelKey: () => void;
}) => Promise<ClusterNetworks>;

/** How a membership begins. */
export interface Beginning {
  readonly identity: Identity;
  /** Absent on the first manager of a cluster: it issues its own. */
  readonly tls?: TlsIdentity;
  readonly founding?: Bootstrap;
  readonly forceNewCluster?: boolean;
  /** What the operator unlocked the node with; empty: it was not locked. */
  readonly unlockKey?: string;
}

// Agents keep their connection quiet for seconds; a manager that is gone should not cost as many.
const AGENT_CHANNEL_OPTIONS = {
  'grpc.keepalive_time_ms': 5_000,
  'grpc.keepalive_timeout_ms': 3_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.use_local_subchannel_pool': 1,
};
const OWN_CERTIFICATE_POLL_MS = 20;
// The others are asked every few seconds.
const OWN_CERTIFICATE_POLLS = 250;
const LOCK_POLL_MS = 50;
const ADOPT_RETRY_MS = 2_000;

export class Membership {
  readonly #options: MembershipOptions;
  readonly #files: CertificateFiles;
  readonly #tool: CertificateProcess;
  readonly #holder = new IdentityHolder();
  readonly #managers: ManagerList;
  readonly #stopping = new AbortController();
  readonly #renewal = new RenewalTimer(
    {
      clock: systemClock,
      random: Math.random,
      certificate: () => this.#holder.current.certificate,
      renew: () => this.#renewInTime(),
      onFailure: (error, retryMs) => {
        const problem = 'the certificate cannot be renewed';
        nodeLog.error({ error: messageOf(error), 'retry.ms': retryMs }, problem);
        this.#options.onProblem('certificate', `${problem}: ${messageOf(error)}`);
      },
    },
    this.#stopping.signal,
  );
  #identity: Identity;
  #beginning: Pick<Beginning, 'founding' | 'forceNewCluster'>;
  /** The newest first; what is on the disk may still be wrapped with the one before. */
  #unlockKeys: readonly string[];
  #agent: Agent | undefined;
  #networks: ClusterNetworks | undefined;
  #manager: { readonly stop: () => Promise<void> } | undefined;
  #changes: Promise<void> = Promise.resolve();
  #isConnected = false;
  #news: ClusterNews | undefined;
  #cancelAdoption = () => {};
  #attemptsWithoutNews = 0;

  private constructor(options: MembershipOptions, { identity, unlockKey, ...beginning }: Beginning) {
    this.#options = options;
    this.#identity = identity;
    this.#beginning = beginning;
    this.#unlockKeys = unlockKey ? [unlockKey] : [];
    this.#files = new CertificateFiles(options.config['data-root']);
    this.#tool = new CertificateProcess({ program: options.program });
    this.#managers = new ManagerList(identity.managers, Math.random);
  }

  /** Returns when everything is under way; a manager that issues this node's certificate first may take its time. */
  static async start(options: MembershipOptions, beginning: Beginning): Promise<Membership> {
    const membership = new Membership(options, beginning);
    try {
      await membership.#start(beginning.tls);
    } catch (error) {
      await membership.stop();
      throw error;
    }
    return membership;
  }

  get identity(): Identity {
    return this.#identity;
  }

  get role(): NodeRole {
    return this.#manager === undefined ? 'worker' : 'manager';
  }

  /** What this node shows and believes. */
  get trust(): NodeTrust {
    return this.#holder.isEmpty ? emptyNodeTrust : trustOf(this.#holder.current);
  }

  /** Images that services with tasks here need; undefined before its agent has started. */
  wantedImages(): string[] | undefined {
    return this.#agent?.wantedImages();
  }

  /** Of the tasks of this node; undefined before its agent has started. */
  get networks(): ClusterNetworks | undefined {
    return this.#networks;
  }

  /** A manager has told this node the news. */
  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** How the same membership would begin again, under other addresses when some are given. */
  again(addresses: Parameters<typeof chooseAddresses>[0]): Beginning {
    const [unlockKey = ''] = this.#unlockKeys;
    const { advertiseAddress, listenAddress, dataPathAddress } = addresses;
    const isMoved = [advertiseAddress, listenAddress, dataPathAddress].some((address) => address !== '');
    const identity = { ...this.#identity, ...(isMoved && chooseAddresses(addresses)) };
    return { identity, tls: this.#holder.current, unlockKey };
  }

  /** The cluster has begun: a manager that is started again finds it. */
  settle(): void {
    this.#beginning = {};
    const { isUnfinished: _, ...identity } = this.#identity;
    this.#identity = identity;
    writeIdentity(this.#dataRoot, identity);
  }

  /** What the manager of this node says of itself. Throws when there is none, or it does not answer. */
  managerHealth(): ReturnType<ReturnType<typeof createClient<typeof ManagerHealthService>>['check']> {
    return withChannel(this.#ownManager(), (channel) =>
      createClient(ManagerHealthService, channel).check({}, { timeoutMs: 2_000 }),
    );
  }

  /** The cluster forgets this node's part in it. Throws when the managers refuse or cannot be reached. */
  leaveCluster(): Promise<unknown> {
    return askManagers(this.#connect(), this.#others, (channel) =>
      createClient(MembershipService, channel).leaveCluster({}, { timeoutMs: CALL_LIMIT_MS }),
    );
  }

  /** Stops and erases all tasks of this node, and ends. */
  async end(): Promise<void> {
    this.#stopping.abort();
    await this.#changes;
    await this.#agent?.removeAll();
    await this.#networks?.destroy();
    this.#networks = undefined;
    await this.stop();
  }

  /** Ends the agent and the manager; containers go on. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#cancelAdoption();
    await this.#changes;
    await this.#agent?.stop();
    await this.#networks?.stop();
    await this.#manager?.stop();
    this.#tool[Symbol.dispose]();
  }

  async #start(tls: TlsIdentity | undefined): Promise<void> {
    if (tls !== undefined) this.#holder.set(tls);
    if (tls === undefined || trustOf(tls).role === 'manager') this.#startManager();
    // After a long time off: a manager has what it takes to be believed again, without anybody's help.
    const isExpired = tls !== undefined && trustOf(tls).expiresAtMs < Date.now();
    if (tls !== undefined && !(isExpired && this.role === 'manager')) return this.#work();
    this.#changes = this.#ownCertificate()
      .then(async (own) => {
        this.#keep(own);
        await this.#runAsCertified();
        return this.#work();
      })
      .catch((error) => {
        if (this.#stopping.signal.aborted) return;
        nodeLog.error({ error: messageOf(error) }, 'the agent does not start');
        this.#options.onProblem('agent', messageOf(error));
      });
  }

  async #work(): Promise<void> {
    this.#agent = await this.#startAgent();
    this.#renewal.plan();
  }

  async #startAgent(): Promise<Agent> {
    const { config, engine, onHealthCheck, openNetworks, onProblem, describe } = this.#options;
    const { nodeId, dataPathAddress } = this.#identity;
    const stateDirectory = path.join(this.#dataRoot, 'agent', 'tasks');
    mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
    const network = await openNetworks({
      nodeId,
      dataPathAddress,
      onProblem: (problem) => onProblem('network', problem),
      onTunnelKey: () => this.#agent?.describeAgain(),
    });
    this.#networks = network;
    return startAgent({
      nodeId,
      connect: () => this.#connectAgent(),
      address: () => parseHostPort(this.#identity.advertiseAddress, 'address').host,
      onNews: (news) => this.#follow(news),
      engine,
      onHealthCheck,
      logDriver: defaultLogDriver(config),
      usernsMode: config.userns,
      network,
      files: new MemoryFiles(path.join(config['run-dir'], 'secrets')),
      stateDirectory,
      describe: () => ({
        ...describe(trustOf(this.#holder.current), dataPathAddress),
        tunnelKey: network.tunnelKey,
      }),
      clock: systemClock,
      random: Math.random,
    });
  }

  #startManager(): void {
    const { config, program, etcd, onProblem } = this.#options;
    const stopping = new AbortController();
    const { nodeId, clusterId, advertiseAddress, listenAddress } = this.#identity;
    const manager = superviseManager(
      {
        program,
        identity: this.#holder,
        manager: () => ({
          nodeId,
          clusterId,
          advertiseAddress: this.#identity.advertiseAddress,
          listenAddress,
          ...this.#beginning,
          managers: this.#managers.addresses.filter((address) => address !== advertiseAddress),
          unlockKeys: this.#unlockKeys,
          stateDirectory: this.#managerDirectory,
          controlSocket: path.join(config['run-dir'], 'control.sock'),
          managerSocket: path.join(config['run-dir'], 'manager.sock'),
          logLevel: config['log-level'],
          ...(etcd && { etcd }),
          ...(!this.#holder.isEmpty && { identity: this.#holder.current }),
        }),
        onExit: (reason) => onProblem('manager', `the manager ended (${reason}) and is started again`),
      },
      stopping.signal,
    );
    this.#manager = {
      stop: async () => {
        stopping.abort();
        await manager;
      },
    };
  }

  /**
   * From the manager of this node, however long it takes to be there: without it there is nothing to do. One that has to take
   * up the log first cannot while its certificate is expired; others can let it in then.
   */
  async #ownCertificate(): Promise<TlsIdentity> {
    for (let attempt = 1; ; attempt++) {
      this.#stopping.signal.throwIfAborted();
      const isOthersTurn = !this.#holder.isEmpty && attempt % OWN_CERTIFICATE_POLLS === 0;
      try {
        const channel = isOthersTurn ? this.#connectToOthers() : this.#ownManager();
        return await withChannel(channel, (open) => requestCertificate(this.#tool, open));
      } catch (error) {
        nodeLog.debug({ error: messageOf(error) }, 'the manager has no certificate for this node yet');
        await delay(OWN_CERTIFICATE_POLL_MS, undefined, { signal: this.#stopping.signal });
      }
    }
  }

  get #others(): Managers {
    return { count: this.#managers.addresses.length, next: () => this.#connectToOthers() };
  }

  #keep(tls: TlsIdentity): void {
    this.#files.write(tls, this.#unlockKeys[0] ?? '');
    this.#holder.set(tls);
  }

  /** News are followed one after the other; the last of them say what is true. */
  #follow(news: ClusterNews): void {
    this.#isConnected = true;
    this.#attemptsWithoutNews = 0;
    this.#news = news;
    this.#adoptSoon();
  }

  #adoptSoon(): void {
    this.#cancelAdoption();
    this.#changes = this.#changes.then(async () => {
      const news = this.#news;
      if (news === undefined || this.#stopping.signal.aborted) return;
      try {
        await this.#adopt(news);
        this.#options.onProblem('news', '');
      } catch (error) {
        if (this.#stopping.signal.aborted) return;
        nodeLog.error(
          { error: messageOf(error), 'retry.ms': ADOPT_RETRY_MS },
          'the news of the cluster cannot be followed',
        );
        this.#options.onProblem('news', messageOf(error));
        this.#cancelAdoption = systemClock.after(ADOPT_RETRY_MS, () => this.#adoptSoon());
      }
    });
  }

  async #adopt(news: ClusterNews): Promise<void> {
    const { managers, roots, role, renewCertificate, unlockKey, address } = news;
    this.#rememberAddresses(
      managers.map((manager) => manager.address),
      address,
    );
    const { current } = this.#holder;
    const isLockChanged = role === 'manager' && unlockKey !== (this.#unlockKeys[0] ?? '');
    if (isLockChanged) await this.#changeLock(unlockKey);
    // What has come meanwhile is adopted next.
    if (news !== this.#news) return;
    if (isLockChanged || roots !== current.roots) {
      this.#keep({ ...current, roots });
      this.#agent?.describeAgain();
    }
    const isOtherRole = trustOf(current).role !== role;
    if (renewCertificate || isOtherRole) await this.#renew(role);
    await this.#runAsCertified();
  }

  /** What the certificate says is what the managers have answered last, which may be newer than the last news. */
  async #runAsCertified(): Promise<void> {
    if (trustOf(this.#holder.current).role === 'manager') {
      if (this.#manager === undefined) this.#startManager();
    } else if (this.#manager !== undefined) await this.#endManager();
  }

  /** Follows the log, whose keys the manager has wrapped anew first: what a crash leaves in between can be opened. */
  async #changeLock(unlockKey: string): Promise<void> {
    const [before] = this.#unlockKeys;
    this.#unlockKeys = [unlockKey, ...(before === undefined ? [] : [before])].filter((key) => key !== '');
    const directory = path.join(this.#managerDirectory, 'log');
    while (!(await logOpens(directory, unlockKey === '' ? undefined : unlockKey))) {
      if (this.#news?.unlockKey !== unlockKey) return;
      await delay(LOCK_POLL_MS, undefined, { signal: this.#stopping.signal });
    }
    this.#unlockKeys = unlockKey === '' ? [] : [unlockKey];
  }

  async #endManager(): Promise<void> {
    await this.#manager?.stop();
    this.#manager = undefined;
    // It may become a manager again, as another member.
    rmSync(this.#managerDirectory, { recursive: true, force: true });
    this.#unlockKeys = [];
    this.#keep(this.#holder.current);
    nodeLog.info('this node is not a manager any more');
  }

  async #renew(role: NodeRole): Promise<void> {
    // Its own manager finds the leader. That it was demoted others may know sooner.
    const first = role === 'manager' ? this.#connect() : this.#connectToOthers();
    const tls = await askManagers(first, this.#others, (channel) => requestCertificate(this.#tool, channel));
    this.#keep(tls);
    this.#agent?.describeAgain();
    nodeLog.info({ role: trustOf(tls).role, 'expires.ms': trustOf(tls).expiresAtMs }, 'certificate renewed');
    this.#renewal.plan();
  }

  /** In its turn among other changes. */
  #renewInTime(): Promise<void> {
    const renewal = this.#changes.then(async () => {
      if (this.#stopping.signal.aborted) return;
      await this.#renew(this.role);
      // It may have been demoted while it heard nobody: its manager has no part in anything any more.
      await this.#runAsCertified();
      this.#options.onProblem('certificate', '');
    });
    this.#changes = renewal.catch(() => {});
    return renewal;
  }

  #rememberAddresses(managers: readonly string[], own: string): void {
    const known = this.#identity;
    const advertiseAddress = own === '' ? known.advertiseAddress : own;
    if (advertiseAddress === known.advertiseAddress && managers.join() === known.managers.join()) return;
    this.#identity = { ...known, managers, advertiseAddress };
    this.#managers.set(managers);
    writeIdentity(this.#dataRoot, this.#identity);
  }

  /** To the manager of this node, or to one of the others. */
  #connect(): Channel {
    return this.#manager === undefined ? this.#connectToOthers() : this.#ownManager();
  }

  /** For the agent: a manager that is in trouble must not keep its node from the cluster. */
  #connectAgent(): Channel {
    const isOwnTurn = this.#attemptsWithoutNews++ % 2 === 0;
    return isOwnTurn ? this.#connect() : this.#connectToOthers();
  }

  #ownManager(): Channel {
    return openChannel(`unix://${path.join(this.#options.config['run-dir'], 'manager.sock')}`);
  }

  /** To the only manager there is when there are no others. */
  #connectToOthers(): Channel {
    const own = this.#identity.advertiseAddress;
    const others = this.#managers.addresses.some((address) => address !== own);
    if (!others && this.#manager !== undefined) return this.#ownManager();
    let address = this.#managers.next();
    if (others && address === own) address = this.#managers.next();
    if (address === undefined)
      throw new SwarmError('unavailable', 'this node knows no manager of its cluster', {
        hint: 'Leave the cluster and join it again.',
      });
    const { clusterId } = this.#identity;
    return openTlsChannel(
      address,
      clientCredentials(this.#holder.current, { clusterId }),
      AGENT_CHANNEL_OPTIONS,
    );
  }

  get #dataRoot(): string {
    return this.#options.config['data-root'];
  }

  get #managerDirectory(): string {
    return path.join(this.#dataRoot, 'manager');
  }
}
