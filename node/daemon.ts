// The daemon of one machine: owns the engine and the network, and while the node is in a cluster its membership. Membership
// changes go through here and leave nothing half-done.

import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Engine, EngineDescription } from '../agent/engine/engine.ts';
import type { ClusterNetworks } from '../agent/network/cluster-networks.ts';
import { sleep } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { emptyNodeTrust, type NodeDescription, type NodeTrust } from '../core/generated/objects.ts';
import { parseUnlockKey } from '../core/unlock-key.ts';
import { VERSION } from '../core/version.ts';
import type { EtcdSettings } from '../manager/etcd-log/settings.ts';
import { ControlService, ManagerHealthService } from '../proto/generated/control.ts';
import {
  type ExamineRequest,
  emptyInitRequest,
  type Finding,
  type InfoResponse,
  type InitRequest,
  type InitResponse,
  type JoinRequest,
  type JoinResponse,
  type LocalNodeState,
  type RestoreRequest,
} from '../proto/generated/node.ts';
import { type Channel, createClient, openChannel, withChannel } from '../rpc/client.ts';
import { CertificateFiles, trustOf } from './certificate-files.ts';
import { CertificateProcess } from './certificate-process.ts';
import { eraseClusterStore, foundClusterStore, requireSameStore } from './cluster-store.ts';
import { type DaemonConfig, etcdSettings } from './config.ts';
import { examineHost, requireFit } from './examine.ts';
import { asItIs, foundingOf } from './founding.ts';
import { deleteIdentity, type Identity, newIdentity, readIdentity, writeIdentity } from './identity.ts';
import { joinCluster } from './joining.ts';
import { nodeLog } from './log.ts';
import { chooseAddresses, describeMachine, mtuOf } from './machine.ts';
import { type Beginning, Membership, type MembershipOptions, type OpenNetworks } from './membership.ts';
import type { NodeFacts } from './metrics-server.ts';
import { Problems } from './problems.ts';
import { restoreManager } from './restore-manager.ts';
import { systemClock } from './system-clock.ts';
import { logOpens } from './unlocking.ts';

export interface DaemonOptions {
  readonly config: DaemonConfig;
  readonly program: string;
  readonly engine: Engine;
  /** What other firewalls do to containers, in sentences. */
  readonly firewallWarnings: () => readonly string[];
  readonly openNetworks: OpenNetworks;
  readonly onHealthCheck: (isSuccess: boolean) => void;
}

const READY_LIMIT_MS = 30_000;
const READY_POLL_MS = 10;

export class Daemon {
  readonly engine: Engine;
  /** Where /metrics is served, for `info`. */
  metricsAddress = '';
  readonly #options: DaemonOptions;
  readonly #engineFacts: EngineDescription;
  readonly #files: CertificateFiles;
  #membership: Membership | undefined;
  /** A member whose keys need the unlock key. */
  #locked: Identity | undefined;
  /** Membership changes follow each other. */
  #change: Promise<unknown> = Promise.resolve();
  #isChanging = false;
  readonly #problems = new Problems();

  private constructor(options: DaemonOptions, engineFacts: EngineDescription) {
    this.#options = options;
    this.engine = options.engine;
    this.#engineFacts = engineFacts;
    this.#files = new CertificateFiles(options.config['data-root']);
  }

  /** Comes back to the cluster that this node is a member of, if any. */
  static async open(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options, await options.engine.describe());
    await daemon.#comeBack();
    return daemon;
  }

  get facts(): NodeFacts {
    const { clusterId = '', nodeId = '' } = this.#membership?.identity ?? {};
    return {
      clusterId,
      nodeId,
      isManager: this.#membership?.role === 'manager',
      certificateExpiresAtMs: this.#membership?.trust.expiresAtMs ?? 0,
      problem: this.#problems.text,
    };
  }

  /** The manager's own metrics; empty when there is none. */
  async managerMetrics(): Promise<string> {
    if (this.#membership?.role !== 'manager') return '';
    const { text } = await this.#ask('manager', (channel) =>
      createClient(ManagerHealthService, channel).metrics({}, { timeoutMs: 5_000 }),
    );
    return text;
  }

  /** Makes this machine the first node of a new cluster. */
  init(request: InitRequest): Promise<InitResponse> {
    return this.#serialized(async () => {
      if (request.forceNewCluster) return this.#forceNewCluster(request);
      this.#requireNoMembership();
      const founding = foundingOf(request);
      const identity = newIdentity(request, this.#etcd === undefined ? 'raft' : 'etcd');
      // What a daemon left that died while it left: a new manager must not replay an old cluster.
      this.#eraseState();
      await foundClusterStore(this.#etcd, identity.clusterId);
      await this.#begin({
        identity,
        founding: { ...founding, dataPathAddress: identity.dataPathAddress },
      });
      return { nodeId: identity.nodeId, unlockKey: await this.#unlockKey() };
    });
  }

  /** Makes this machine the first node of a cluster that is restored from the bytes of a backup file. */
  restore(
    { advertiseAddress, unlockKey }: RestoreRequest,
    file: AsyncIterable<Uint8Array>,
  ): Promise<InitResponse> {
    return this.#serialized(async () => {
      this.#requireOwnStore('cluster restore');
      this.#requireNoMembership();
      const fresh = newIdentity({ ...emptyInitRequest, advertiseAddress }, 'raft');
      this.#eraseState();
      try {
        const clusterId = await restoreManager(
          { ...fresh, directory: this.#managerDirectory, unlockKey },
          file,
        );
        await this.#begin({ identity: { ...fresh, clusterId }, founding: asItIs });
      } catch (error) {
        this.#eraseState();
        throw error;
      }
      return { nodeId: fresh.nodeId, unlockKey: await this.#unlockKey() };
    });
  }

  /** Makes this machine a node of the cluster that the token is of. */
  join(request: JoinRequest): Promise<JoinResponse> {
    return this.#serialized(async () => {
      this.#requireNoMembership();
      const addresses = chooseAddresses(request);
      const { token, managers, availability, labels } = request;
      const findings = requireFit(await this.examine(request));
      using tool = new CertificateProcess({ program: this.#options.program });
      this.#eraseState();
      const { advertiseAddress: address, dataPathAddress } = addresses;
      const joined = await joinCluster(tool, {
        token,
        managers,
        request: { availability, labels, address, dataPathAddress },
      });
      const { nodeId, clusterId, identity: tls } = joined;
      this.#files.write(tls, '');
      const store = this.#etcd === undefined ? ('raft' as const) : ('etcd' as const);
      await this.#begin({ identity: { ...addresses, nodeId, clusterId, managers, store }, tls });
      return { nodeId, role: trustOf(tls).role, findings };
    });
  }

  /** What of this machine stands in the way of the cluster, and what will hurt. Asks the managers that it knows, or these. */
  examine({ managers }: ExamineRequest): Promise<Finding[]> {
    const { config, firewallWarnings } = this.#options;
    const own = this.#membership?.identity;
    const known = own?.managers.filter((address) => address !== own.advertiseAddress) ?? [];
    return examineHost({
      managers: managers.length > 0 ? managers : known,
      dataRoot: config['data-root'],
      runDir: config['run-dir'],
      engine: this.#engineFacts,
      networkWarnings: firewallWarnings(),
      isLog: this.#membership?.role === 'manager' && this.#etcd === undefined,
    });
  }

  /** Leaves the cluster and forgets it; tasks of this node are stopped and removed. */
  leave(force: boolean): Promise<void> {
    return this.#serialized(async () => {
      const membership = this.#membership;
      if (membership === undefined && this.#locked === undefined)
        throw new SwarmError('failed-precondition', 'this node is not part of a cluster');
      if (!force) await this.#sayGoodbye();
      else
        await this.#sayGoodbye().catch((error) =>
          nodeLog.warn({ error: messageOf(error) }, 'the managers do not know that this node leaves'),
        );
      await this.#endMembership();
    });
  }

  /** Gives a locked manager its key. */
  unlock(key: string): Promise<void> {
    return this.#serialized(async () => {
      const identity = this.#locked;
      if (identity === undefined) throw new SwarmError('failed-precondition', 'this node is not locked');
      parseUnlockKey(key);
      if (!(await logOpens(this.#logDirectory, key)))
        throw new SwarmError('permission-denied', 'this is not the unlock key of this manager', {
          hint: 'A manager that was down while the key was changed needs the one before.',
        });
      // When the machine stopped just when the key was changed, the node's own key still has the one before: the manager
      // then makes a new one.
      const tls = this.#files.read(key);
      this.#membership = await Membership.start(this.#membershipOptions(), {
        identity,
        unlockKey: key,
        ...(typeof tls === 'object' && { tls }),
      });
      this.#locked = undefined;
    });
  }

  async info(): Promise<InfoResponse> {
    const { config } = this.#options;
    await this.#checkManager();
    const [containers, images] = await Promise.all([
      this.engine.containers.list(),
      this.engine.images.list(),
    ]);
    const running = containers.filter(({ status }) => status.state === 'running').length;
    const identity = this.#membership?.identity ?? this.#locked;
    return {
      version: VERSION,
      state: this.#localState(),
      error: this.#problems.text,
      nodeId: identity?.nodeId ?? '',
      clusterId: identity?.clusterId ?? '',
      manager: this.#membership?.role === 'manager' || this.#locked !== undefined,
      description: {
        ...this.#describe(this.#membership?.trust ?? emptyNodeTrust, identity?.dataPathAddress),
        tunnelKey: this.networks?.tunnelKey ?? '',
      },
      dataRoot: config['data-root'],
      cgroupVersion: this.#engineFacts.cgroupVersion,
      containersRunning: running,
      containersStopped: containers.length - running,
      images: images.length,
      advertiseAddress: identity?.advertiseAddress ?? '',
      metricsAddress: this.metricsAddress,
      warnings: [...this.#engineFacts.warnings, ...this.#options.firewallWarnings()],
      containerdVersion: this.#engineFacts.containerdVersion,
      runtimeName: this.#engineFacts.runtime,
      store: describeStore(this.#etcd),
      managers: identity?.managers ?? [],
      certificateExpiresAtMs: this.#membership?.trust.expiresAtMs ?? 0,
    };
  }

  #describe(trust: NodeTrust, dataPathAddress = ''): Omit<NodeDescription, 'tunnelKey'> {
    const { containerdVersion, runtime } = this.#engineFacts;
    const facts = { version: VERSION, runtime: `containerd ${containerdVersion}, ${runtime}` };
    const machine = describeMachine(facts, this.#options.config);
    return { ...machine, trust, dataPathMtu: mtuOf(dataPathAddress) };
  }

  /** Images that services with tasks here need; undefined while that is not known. */
  wantedImages(): string[] | undefined {
    return this.#locked !== undefined || this.#isChanging ? undefined : this.#membership?.wantedImages();
  }

  get networks(): ClusterNetworks | undefined {
    return this.#membership?.networks;
  }

  /** Ends the agent and the manager; containers go on. */
  async stop(): Promise<void> {
    await this.#change.catch(() => {});
    await this.#membership?.stop();
  }

  async #comeBack(): Promise<void> {
    const identity = readIdentity(this.#dataRoot);
    if (identity === undefined) return;
    if (identity.isUnfinished) {
      nodeLog.warn('the daemon ended while this node became a member: what that left is removed');
      this.#forget();
      return;
    }
    requireSameStore(identity, this.#etcd === undefined ? 'raft' : 'etcd');
    if (!(await logOpens(this.#logDirectory, undefined))) {
      this.#locked = identity;
      nodeLog.warn('this manager is locked: it needs the unlock key ("tsswarm unlock")');
      return;
    }
    const tls = this.#files.read(undefined);
    this.#membership = await Membership.start(this.#membershipOptions(), {
      identity,
      ...(typeof tls === 'object' && { tls }),
    });
  }

  /** Starts what a member runs; undone as a whole when that fails. */
  async #begin(beginning: Beginning): Promise<void> {
    const { identity } = beginning;
    writeIdentity(this.#dataRoot, { ...identity, isUnfinished: true });
    try {
      this.#membership = await Membership.start(this.#membershipOptions(), beginning);
      await this.#untilReady();
      this.#membership.settle();
    } catch (error) {
      await this.#sayGoodbye().catch(() => {});
      await this.#endMembership();
      throw error;
    }
  }

  /** This manager goes on alone with what is on its disk. Its containers are not touched. */
  async #forceNewCluster(request: InitRequest): Promise<InitResponse> {
    this.#requireOwnStore('force-new-cluster');
    const membership = this.#membership;
    if (membership === undefined || membership.role !== 'manager')
      throw new SwarmError(
        'failed-precondition',
        membership === undefined
          ? 'this node is not part of a cluster: there is nothing to go on with'
          : 'this node is a worker: only a manager has the state to go on with',
        {
          hint: 'Use "tsswarm init" without --force-new-cluster, or "tsswarm cluster restore".',
        },
      );
    await membership.stop();
    this.#membership = await Membership.start(this.#membershipOptions(), {
      ...membership.again(request),
      founding: asItIs,
      forceNewCluster: true,
    });
    await this.#untilReady();
    this.#membership.settle();
    return { nodeId: membership.identity.nodeId, unlockKey: '' };
  }

  /** Tells the managers, which refuse what would leave them without a majority. */
  async #sayGoodbye(): Promise<void> {
    await this.#membership?.leaveCluster();
  }

  #requireOwnStore(what: string): void {
    if (this.#etcd !== undefined)
      throw new SwarmError(
        'failed-precondition',
        `${what}: the state of this node's cluster is kept in etcd`,
        {
          hint: 'Back up and restore etcd itself, for instance with "etcdctl snapshot".',
        },
      );
  }

  #requireNoMembership(): void {
    if (this.#membership !== undefined || this.#locked !== undefined)
      throw new SwarmError('failed-precondition', 'this node is already part of a cluster', {
        hint: 'Use "tsswarm leave" (--force when its cluster is gone) to leave it first.',
      });
  }

  #membershipOptions(): MembershipOptions {
    return {
      ...this.#options,
      describe: (trust, dataPathAddress) => this.#describe(trust, dataPathAddress),
      etcd: this.#etcd,
      onProblem: (subject: string, text: string) => this.#problems.set(subject, text),
    };
  }

  get #dataRoot(): string {
    return this.#options.config['data-root'];
  }

  get #managerDirectory(): string {
    return path.join(this.#dataRoot, 'manager');
  }

  get #logDirectory(): string {
    return path.join(this.#managerDirectory, 'log');
  }

  #socket(name: 'manager' | 'control'): string {
    return path.join(this.#options.config['run-dir'], `${name}.sock`);
  }

  #localState(): LocalNodeState {
    if (this.#isChanging) return 'pending';
    if (this.#locked !== undefined) return 'locked';
    if (this.#membership === undefined) return 'inactive';
    return this.#problems.text === '' ? 'active' : 'error';
  }

  #serialized<T>(change: () => Promise<T>): Promise<T> {
    const next = this.#change
      .catch(() => {})
      .then(async () => {
        this.#isChanging = true;
        try {
          return await change();
        } finally {
          this.#isChanging = false;
        }
      });
    this.#change = next;
    return next;
  }

  async #endMembership(): Promise<void> {
    const isLast = this.#membership?.identity.managers.length ?? 0;
    await this.#membership?.end();
    // After an `init` that failed there is no membership, but a cluster may have begun.
    const identity = readIdentity(this.#dataRoot);
    if (identity !== undefined && isLast <= 1) await eraseClusterStore(this.#etcd, identity.clusterId);
    this.#membership = undefined;
    this.#locked = undefined;
    this.#problems.clear();
    this.#forget();
    nodeLog.info('left the cluster');
  }

  #forget(): void {
    deleteIdentity(this.#dataRoot);
    this.#eraseState();
  }

  get #etcd(): EtcdSettings | undefined {
    return etcdSettings(this.#options.config);
  }

  #eraseState(): void {
    for (const folder of ['manager', 'agent'])
      rmSync(path.join(this.#dataRoot, folder), { recursive: true, force: true });
    this.#files.delete();
  }

  /** A manager that answers again is no error any more. */
  async #checkManager(): Promise<void> {
    if (!this.#problems.has('manager') || this.#membership?.role !== 'manager') return;
    try {
      if (await this.#isReady(this.#membership)) this.#problems.set('manager', '');
    } catch (error) {
      nodeLog.debug({ error: messageOf(error) }, 'the manager does not answer yet');
    }
  }

  /** Until the cluster has this node as ready, and counts its manager. */
  async #untilReady(): Promise<void> {
    const membership = this.#membership;
    const deadlineMs = Date.now() + READY_LIMIT_MS;
    for (let failure = 'it has not answered yet'; ; await sleep(systemClock, READY_POLL_MS)) {
      try {
        if (membership !== undefined && (await this.#isReady(membership))) return;
      } catch (error) {
        failure = messageOf(error);
      }
      const hasEnded = this.#problems.has('manager');
      if (hasEnded || Date.now() > deadlineMs)
        throw new SwarmError(
          'deadline-exceeded',
          hasEnded ? this.#problems.text : `no member after ${READY_LIMIT_MS / 1000} s: ${failure}`,
          { hint: 'The log of tsswarmd says more.' },
        );
    }
  }

  async #isReady(membership: Membership): Promise<boolean> {
    if (membership.role === 'worker') return membership.isConnected;
    if (!existsSync(this.#socket('control'))) return false;
    const { member, problem } = await membership.managerHealth();
    if (!member) throw new SwarmError('unavailable', problem || 'the manager is not a member yet');
    const { nodes } = await this.#ask('control', (channel) =>
      createClient(ControlService, channel).listNodes({}, { timeoutMs: 2_000 }),
    );
    const { nodeId } = membership.identity;
    return nodes.some((node) => node.id === nodeId && node.status.state === 'ready');
  }

  /** Empty when the cluster is not locked. */
  async #unlockKey(): Promise<string> {
    const { key } = await this.#ask('control', (channel) =>
      createClient(ControlService, channel).getUnlockKey({}, { timeoutMs: 5_000 }),
    );
    return key;
  }

  /** Of the manager of this node. */
  #ask<T>(socket: 'manager' | 'control', use: (channel: Channel) => Promise<T>): Promise<T> {
    return withChannel(openChannel(`unix://${this.#socket(socket)}`), use);
  }
}

function describeStore(etcd: EtcdSettings | undefined): string {
  return etcd === undefined ? 'raft' : `etcd at ${etcd.hosts.join(', ')} under ${etcd.prefix}`;
}
