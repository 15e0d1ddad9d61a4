// What runs while this node is a member of a cluster: the agent, on a manager the manager process, and the renewal of the
// certificate. The cluster's news decide what the node is; they come one after the other.

import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { type Agent, type AgentOptions, startAgent } from '../agent/agent.ts';
import type { ClusterNetworks } from '../agent/network/cluster-networks.ts';
import { MemoryFiles } from '../agent/secrets/memory-files.ts';
import { parseHostPort } from '../core/addresses.ts';
import { messageOf } from '../core/errors.ts';
import {
  emptyNodeTrust,
  type NodeDescription,
  type NodeRole,
  type NodeTrust,
} from '../core/generated/objects.ts';
import type { Bootstrap } from '../manager/bootstrap.ts';
import type { EtcdSettings } from '../manager/etcd-log/settings.ts';
import { ManagerHealthService } from '../proto/generated/control.ts';
import { type Channel, createClient, openChannel, openTlsChannel, withChannel } from '../rpc/client.ts';
import { clientCredentials, type TlsIdentity } from '../rpc/tls.ts';
import { CertificateFiles, trustOf } from './certificate-files.ts';
import { CertificateProcess } from './certificate-process.ts';
import { CertifiedRole, type CertifiedRoleOptions, type RoleSubject } from './certified-role.ts';
import { type DaemonConfig, defaultLogDriver } from './config.ts';
import { type Identity, writeIdentity } from './identity.ts';
import { nodeLog } from './log.ts';
import { chooseAddresses } from './machine.ts';
import { superviseManager } from './manager-process.ts';
import { systemClock } from './system-clock.ts';
import { NodeLock } from './unlocking.ts';

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

export class Membership {
  readonly #options: MembershipOptions;
  readonly #files: CertificateFiles;
  readonly #tool: CertificateProcess;
  readonly #stopping = new AbortController();
  readonly #role: CertifiedRole;
  #identity: Identity;
  #beginning: Pick<Beginning, 'founding' | 'forceNewCluster'>;
  readonly #lock: NodeLock;
  #agent: Agent | undefined;
  #networks: ClusterNetworks | undefined;
  #starting: Promise<void> = Promise.resolve();

  private constructor(options: MembershipOptions, { identity, unlockKey, ...beginning }: Beginning) {
    this.#options = options;
    this.#identity = identity;
    this.#beginning = beginning;
    this.#lock = new NodeLock(path.join(this.#managerDirectory, 'log'), unlockKey ?? '');
    this.#files = new CertificateFiles(options.config['data-root']);
    this.#tool = new CertificateProcess({ program: options.program });
    this.#role = new CertifiedRole(this.#roleOptions(), this.#stopping.signal);
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
    return this.#role.role;
  }

  /** What this node shows and believes. */
  get trust(): NodeTrust {
    return this.#role.holder.isEmpty ? emptyNodeTrust : trustOf(this.#role.holder.current);
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
    return this.#role.news !== undefined;
  }

  /** How the same membership would begin again, under other addresses when some are given. */
  again(addresses: Parameters<typeof chooseAddresses>[0]): Beginning {
    const { advertiseAddress, listenAddress, dataPathAddress } = addresses;
    const isMoved = [advertiseAddress, listenAddress, dataPathAddress].some((address) => address !== '');
    const identity = { ...this.#identity, ...(isMoved && chooseAddresses(addresses)) };
    return { identity, tls: this.#role.holder.current, unlockKey: this.#lock.key };
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
  leaveCluster(): Promise<void> {
    return this.#role.leaveCluster();
  }

  /** Stops and erases all tasks of this node, and ends. */
  async end(): Promise<void> {
    this.#stopping.abort();
    await this.#settled();
    await this.#agent?.removeAll();
    await this.#networks?.destroy();
    this.#networks = undefined;
    await this.stop();
  }

  /** Ends the agent and the manager; containers go on. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#settled();
    await this.#agent?.stop();
    await this.#networks?.stop();
    await this.#role.stopManager();
    this.#tool[Symbol.dispose]();
  }

  async #settled(): Promise<void> {
    await this.#starting;
    await this.#role.idle();
  }

  async #start(tls: TlsIdentity | undefined): Promise<void> {
    if (this.#role.start(tls)) return this.#work();
    this.#starting = this.#role
      .certify()
      .then(() => this.#work())
      .catch((error) => {
        if (this.#stopping.signal.aborted) return;
        nodeLog.error({ error: messageOf(error) }, 'the agent does not start');
        this.#options.onProblem('agent', messageOf(error));
      });
  }

  async #work(): Promise<void> {
    this.#agent = await this.#startAgent();
    this.#role.planRenewal();
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
      connect: () => this.#role.connectAgent(),
      address: () => parseHostPort(this.#identity.advertiseAddress, 'address').host,
      onNews: (news) => this.#role.follow(news),
      engine,
      onHealthCheck,
      logDriver: defaultLogDriver(config),
      usernsMode: config.userns,
      network,
      files: new MemoryFiles(path.join(config['run-dir'], 'secrets')),
      stateDirectory,
      describe: () => ({
        ...describe(trustOf(this.#role.holder.current), dataPathAddress),
        tunnelKey: network.tunnelKey,
      }),
      clock: systemClock,
      random: Math.random,
    });
  }

  #startManager(): { readonly stop: () => Promise<void> } {
    const { config, program, etcd, onProblem } = this.#options;
    const stopping = new AbortController();
    const { nodeId, clusterId, advertiseAddress, listenAddress } = this.#identity;
    const manager = superviseManager(
      {
        program,
        identity: this.#role.holder,
        manager: () => ({
          nodeId,
          clusterId,
          advertiseAddress: this.#identity.advertiseAddress,
          listenAddress,
          ...this.#beginning,
          managers: this.#role.managers.filter((address) => address !== advertiseAddress),
          unlockKeys: this.#lock.logKeys,
          stateDirectory: this.#managerDirectory,
          controlSocket: path.join(config['run-dir'], 'control.sock'),
          managerSocket: path.join(config['run-dir'], 'manager.sock'),
          logLevel: config['log-level'],
          ...(etcd && { etcd }),
          ...(!this.#role.holder.isEmpty && { identity: this.#role.holder.current }),
        }),
        onExit: (reason) => onProblem('manager', `the manager ended (${reason}) and is started again`),
      },
      stopping.signal,
    );
    return {
      stop: async () => {
        stopping.abort();
        await manager;
      },
    };
  }

  #roleOptions(): CertifiedRoleOptions {
    return {
      clock: systemClock,
      random: Math.random,
      tool: this.#tool,
      managers: this.#identity.managers,
      ownAddress: () => this.#identity.advertiseAddress,
      connectToOwnManager: () => this.#ownManager(),
      connectTo: (address) => this.#connectTo(address),
      startManager: () => this.#startManager(),
      forgetManager: () => this.#forgetManager(),
      keep: (tls) => this.#files.write(tls, this.#lock.key),
      remember: (managers, ownAddress) => this.#remember(managers, ownAddress),
      changeLock: (unlockKey) =>
        this.#lock.change(unlockKey, () => this.#role.news?.unlockKey === unlockKey, this.#stopping.signal),
      onChange: () => this.#agent?.describeAgain(),
      onSuccess: (subject) => this.#onSuccess(subject),
      onFailure: (subject, error, retryMs) => this.#onFailure(subject, error, retryMs),
    };
  }

  #onSuccess(subject: RoleSubject): void {
    this.#options.onProblem(subject === 'news' ? 'news' : 'certificate', '');
    if (subject !== 'renewal') return;
    const { role, expiresAtMs } = this.trust;
    nodeLog.info({ role, 'expires.ms': expiresAtMs }, 'certificate renewed');
  }

  #onFailure(subject: RoleSubject, error: unknown, retryMs: number): void {
    const reason = messageOf(error);
    const fields = { error: reason, 'retry.ms': retryMs };
    const { onProblem } = this.#options;
    if (subject === 'first certificate') {
      nodeLog.debug(fields, 'the manager has no certificate for this node yet');
    } else if (subject === 'news') {
      nodeLog.error(fields, 'the news of the cluster cannot be followed');
      onProblem('news', reason);
    } else {
      const problem = 'the certificate cannot be renewed';
      nodeLog.error(fields, problem);
      onProblem('certificate', `${problem}: ${reason}`);
    }
  }

  #forgetManager(): void {
    rmSync(this.#managerDirectory, { recursive: true, force: true });
    this.#lock.clear();
    this.#files.write(this.#role.holder.current, '');
    nodeLog.info('this node is not a manager any more');
  }

  #remember(managers: readonly string[], own: string): void {
    const known = this.#identity;
    const advertiseAddress = own === '' ? known.advertiseAddress : own;
    if (advertiseAddress === known.advertiseAddress && managers.join() === known.managers.join()) return;
    this.#identity = { ...known, managers, advertiseAddress };
    writeIdentity(this.#dataRoot, this.#identity);
  }

  #ownManager(): Channel {
    return openChannel(`unix://${path.join(this.#options.config['run-dir'], 'manager.sock')}`);
  }

  #connectTo(address: string): Channel {
    const { clusterId } = this.#identity;
    return openTlsChannel(
      address,
      clientCredentials(this.#role.holder.current, { clusterId }),
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
