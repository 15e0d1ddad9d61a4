// The daemon of one machine: owns the engine and the network, and while the node is in a cluster its agent and, on a
// manager, the manager process. Membership changes go through here and leave nothing half-done.

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { type Agent, startAgent } from '../agent/agent.ts';
import type { Engine, EngineDescription } from '../agent/engine/engine.ts';
import type { LocalNetwork } from '../agent/network/local-network.ts';
import { sleep } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { emptyClusterSpec, type NodeDescription } from '../core/generated/objects.ts';
import { newId } from '../core/ids.ts';
import { VERSION } from '../core/version.ts';
import type { EtcdSettings } from '../manager/etcd-log/settings.ts';
import { ControlService, ManagerHealthService } from '../proto/generated/control.ts';
import {
  emptyInitRequest,
  type InfoResponse,
  type InitRequest,
  type InitResponse,
  type LocalNodeState,
  type RestoreRequest,
} from '../proto/generated/node.ts';
import { createClient, openChannel } from '../rpc/client.ts';
import { type DaemonConfig, etcdSettings } from './config.ts';
import { deleteIdentity, type Identity, readIdentity, writeIdentity } from './identity.ts';
import { nodeLog } from './log.ts';
import { chooseAdvertiseAddress, describeMachine } from './machine.ts';
import { superviseManager } from './manager-process.ts';
import { restoreManager } from './restore-manager.ts';
import { systemClock } from './system-clock.ts';

export interface DaemonOptions {
  readonly config: DaemonConfig;
  readonly program: string;
  readonly engine: Engine;
  readonly network: LocalNetwork;
}

/** What runs while the node is a member. */
interface Membership {
  readonly identity: Identity;
  readonly agent: Agent;
  readonly stopManager: () => Promise<void>;
}

const READY_LIMIT_MS = 30_000;
const READY_POLL_MS = 10;

export class Daemon {
  readonly engine: Engine;
  /** Where /metrics is served, for `info`. */
  metricsAddress = '';
  readonly #options: DaemonOptions;
  readonly #engineFacts: EngineDescription;
  #membership: Membership | undefined;
  /** Membership changes follow each other. */
  #change: Promise<unknown> = Promise.resolve();
  #isChanging = false;
  #managerError = '';

  private constructor(options: DaemonOptions, engineFacts: EngineDescription) {
    this.#options = options;
    this.engine = options.engine;
    this.#engineFacts = engineFacts;
  }

  /** Comes back to the cluster that this node is a member of, if any. */
  static async open(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options, await options.engine.describe());
    const identity = readIdentity(options.config['data-root']);
    if (identity !== undefined) daemon.#membership = await daemon.#join(identity);
    return daemon;
  }

  get membership(): { clusterId: string; nodeId: string; isManager: boolean } {
    const { clusterId = '', nodeId = '' } = this.#membership?.identity ?? {};
    return { clusterId, nodeId, isManager: nodeId !== '' };
  }

  /** The manager's own metrics; empty when there is none. */
  async managerMetrics(): Promise<string> {
    if (this.#membership === undefined) return '';
    const channel = openChannel(`unix://${this.#socket('manager')}`);
    try {
      const { text } = await createClient(ManagerHealthService, channel).metrics({}, { timeoutMs: 5_000 });
      return text;
    } finally {
      channel.close();
    }
  }

  /** Makes this machine the first node of a new cluster. */
  init(request: InitRequest): Promise<InitResponse> {
    return this.#serialized(async () => {
      if (request.forceNewCluster) return this.#forceNewCluster();
      this.#requireNoMembership();
      const identity = this.#newIdentity(request);
      // What a daemon left that died while it left: a new manager must not replay an old cluster.
      this.#eraseState();
      await this.#foundStore(identity);
      return this.#begin(identity);
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
      const fresh = this.#newIdentity({ ...emptyInitRequest, advertiseAddress });
      this.#eraseState();
      try {
        const directory = path.join(this.#dataRoot, 'manager');
        const clusterId = await restoreManager({ ...fresh, directory, unlockKey }, file);
        return await this.#begin({ ...fresh, clusterId });
      } catch (error) {
        this.#eraseState();
        throw error;
      }
    });
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
    if (this.#membership !== undefined)
      throw new SwarmError('failed-precondition', 'this node is already part of a cluster', {
        hint: 'Use "tsswarm leave --force" to leave it first.',
      });
  }

  /** Starts what a member runs; undone as a whole when that fails. */
  async #begin(identity: Identity): Promise<InitResponse> {
    writeIdentity(this.#dataRoot, identity);
    try {
      this.#membership = await this.#join(identity);
      await this.#untilReady(identity.nodeId);
    } catch (error) {
      await this.#endMembership();
      throw error;
    }
    return { nodeId: identity.nodeId };
  }

  /** This manager goes on alone with what is on its disk. Its containers are not touched. */
  async #forceNewCluster(): Promise<InitResponse> {
    this.#requireOwnStore('force-new-cluster');
    const membership = this.#membership;
    if (membership === undefined)
      throw new SwarmError(
        'failed-precondition',
        'this node is not part of a cluster: there is nothing to go on with',
        {
          hint: 'Use "tsswarm init" without --force-new-cluster, or "tsswarm cluster restore".',
        },
      );
    await membership.agent.stop();
    await membership.stopManager();
    this.#membership = await this.#join(membership.identity, { forceNewCluster: true });
    await this.#untilReady(membership.identity.nodeId);
    return { nodeId: membership.identity.nodeId };
  }

  /** Leaves the cluster and forgets it; tasks of this node are stopped and removed. */
  leave(force: boolean): Promise<void> {
    return this.#serialized(async () => {
      if (this.#membership === undefined)
        throw new SwarmError('failed-precondition', 'this node is not part of a cluster');
      if (!force)
        throw new SwarmError(
          'failed-precondition',
          'this node is the last manager: leaving erases the cluster with all its services',
          { hint: 'Use --force if that is what you want.' },
        );
      await this.#endMembership();
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
    const identity = this.#membership?.identity;
    return {
      version: VERSION,
      state: this.#localState(),
      error: this.#managerError,
      nodeId: identity?.nodeId ?? '',
      clusterId: identity?.clusterId ?? '',
      manager: identity !== undefined,
      description: this.describe(),
      dataRoot: config['data-root'],
      cgroupVersion: this.#engineFacts.cgroupVersion,
      containersRunning: running,
      containersStopped: containers.length - running,
      images: images.length,
      advertiseAddress: identity?.advertiseAddress ?? '',
      metricsAddress: this.metricsAddress,
      warnings: [...this.#engineFacts.warnings, ...this.#options.network.warnings],
      containerdVersion: this.#engineFacts.containerdVersion,
      runtimeName: this.#engineFacts.runtime,
      store: describeStore(this.#etcd),
    };
  }

  describe(): NodeDescription {
    const { containerdVersion, runtime } = this.#engineFacts;
    const labels = Object.fromEntries(
      this.#options.config.label.map((entry) => [
        entry.split('=')[0] ?? '',
        entry.slice(entry.indexOf('=') + 1),
      ]),
    );
    return describeMachine({
      version: VERSION,
      runtime: `containerd ${containerdVersion}, ${runtime}`,
      labels,
    });
  }

  /** Ends the agent and the manager; containers go on. */
  async stop(): Promise<void> {
    await this.#change.catch(() => {});
    await this.#membership?.agent.stop();
    await this.#membership?.stopManager();
  }

  get #dataRoot(): string {
    return this.#options.config['data-root'];
  }

  #socket(name: 'manager' | 'control'): string {
    return path.join(this.#options.config['run-dir'], `${name}.sock`);
  }

  #localState(): LocalNodeState {
    if (this.#isChanging) return 'pending';
    if (this.#membership === undefined) return 'inactive';
    return this.#managerError === '' ? 'active' : 'error';
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

  #newIdentity(request: InitRequest): Identity {
    const { taskHistoryLimit, heartbeatPeriodMs, snapshotInterval } = request;
    const asked = { ...emptyClusterSpec, taskHistoryLimit, heartbeatPeriodMs, snapshotInterval };
    // Zero means "not said", except for a history limit, which the command line always says.
    const clusterSpec = Object.fromEntries(
      Object.entries(asked).filter(
        ([key, value]) => key === 'taskHistoryLimit' || (typeof value === 'number' && value > 0),
      ),
    );
    return {
      nodeId: newId(randomBytes),
      clusterId: newId(randomBytes),
      advertiseAddress: chooseAdvertiseAddress(request.advertiseAddress),
      clusterSpec,
      availability: request.availability,
      store: this.#etcd === undefined ? 'raft' : 'etcd',
    };
  }

  async #join(identity: Identity, { forceNewCluster = false } = {}): Promise<Membership> {
    const { config, program, engine, network } = this.#options;
    const etcd = this.#etcd;
    requireSameStore(identity, etcd === undefined ? 'raft' : 'etcd');
    const stopping = new AbortController();
    const manager = superviseManager(
      {
        program,
        manager: {
          ...identity,
          forceNewCluster,
          stateDirectory: path.join(this.#dataRoot, 'manager'),
          controlSocket: this.#socket('control'),
          managerSocket: this.#socket('manager'),
          logLevel: config['log-level'],
          ...(etcd && { etcd }),
        },
        onExit: (reason) => {
          this.#managerError = `the manager ended (${reason}) and is started again`;
        },
      },
      stopping.signal,
    );
    const stateDirectory = path.join(this.#dataRoot, 'agent', 'tasks');
    mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
    const stopManager = async () => {
      stopping.abort();
      await manager;
    };
    const agent = await startAgent({
      nodeId: identity.nodeId,
      manager: `unix://${this.#socket('manager')}`,
      engine,
      network,
      stateDirectory,
      describe: () => this.describe(),
      clock: systemClock,
      random: Math.random,
    }).catch(async (error: unknown) => {
      await stopManager();
      throw error;
    });
    return { identity, agent, stopManager };
  }

  async #endMembership(): Promise<void> {
    await this.#membership?.agent.removeAll();
    await this.#membership?.stopManager();
    // After an `init` that failed there is no membership, but a cluster may have begun.
    const identity = readIdentity(this.#dataRoot);
    if (identity !== undefined) await this.#eraseStore(identity);
    this.#membership = undefined;
    this.#managerError = '';
    deleteIdentity(this.#dataRoot);
    this.#eraseState();
    nodeLog.info('left the cluster');
  }

  get #etcd(): EtcdSettings | undefined {
    return etcdSettings(this.#options.config);
  }

  /** A cluster in etcd begins before its first manager does: what stands in the way is then the answer to `init`. */
  async #foundStore({ clusterId }: Identity): Promise<void> {
    if (this.#etcd === undefined) return;
    const { foundInEtcd } = await import('../manager/etcd-log/cluster-prefix.ts');
    await foundInEtcd(this.#etcd, clusterId, systemClock);
  }

  /** The last manager takes the cluster with it, also out of etcd. */
  async #eraseStore({ clusterId }: Identity): Promise<void> {
    if (this.#etcd === undefined) return;
    try {
      const { eraseFromEtcd } = await import('../manager/etcd-log/cluster-prefix.ts');
      await eraseFromEtcd(this.#etcd, clusterId, systemClock);
    } catch (error) {
      nodeLog.error(
        { error: messageOf(error), 'cluster.id': clusterId },
        'the cluster could not be removed from etcd',
      );
    }
  }

  #eraseState(): void {
    for (const folder of ['manager', 'agent'])
      rmSync(path.join(this.#dataRoot, folder), { recursive: true, force: true });
  }

  /** A manager that answers again is no error any more. */
  async #checkManager(): Promise<void> {
    if (this.#managerError === '' || this.#membership === undefined) return;
    try {
      if (await this.#isReady(this.#membership.identity.nodeId)) this.#managerError = '';
    } catch (error) {
      nodeLog.debug({ error: messageOf(error) }, 'the manager does not answer yet');
    }
  }

  /** Until the manager answers and has this node as ready. */
  async #untilReady(nodeId: string): Promise<void> {
    const deadlineMs = Date.now() + READY_LIMIT_MS;
    for (let failure = 'it has not answered yet'; ; await sleep(systemClock, READY_POLL_MS)) {
      try {
        if (existsSync(this.#socket('control')) && (await this.#isReady(nodeId))) return;
      } catch (error) {
        failure = messageOf(error);
      }
      if (Date.now() > deadlineMs)
        throw new SwarmError(
          'deadline-exceeded',
          `the manager did not start in ${READY_LIMIT_MS / 1000} s: ${this.#managerError || failure}`,
          {
            hint: 'The log of tsswarmd says more.',
          },
        );
    }
  }

  async #isReady(nodeId: string): Promise<boolean> {
    const channel = openChannel(`unix://${this.#socket('control')}`);
    try {
      const { nodes } = await createClient(ControlService, channel).listNodes({}, { timeoutMs: 2_000 });
      return nodes.some((node) => node.id === nodeId && node.status.state === 'ready');
    } finally {
      channel.close();
    }
  }
}

/** A manager with the wrong store would begin an empty cluster, and this node's containers would be none of it. */
function requireSameStore({ store = 'raft' }: Identity, configured: 'raft' | 'etcd'): void {
  if (store === configured) return;
  throw new SwarmError(
    'failed-precondition',
    `this node's cluster keeps its state in ${store}, but the daemon is told to use ${configured}`,
    {
      hint: `Start it with "--store ${store === 'raft' ? 'raft' : 'etcd=HOST:PORT'}", as when the cluster began.`,
    },
  );
}

function describeStore(etcd: EtcdSettings | undefined): string {
  return etcd === undefined ? 'raft' : `etcd at ${etcd.hosts.join(', ')} under ${etcd.prefix}`;
}
