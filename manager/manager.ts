// One manager: log, store, control loops, dispatcher and the doors they are reached by. Starts everything, in the order
// in which each needs the one before, and ends it when told to.

import { randomBytes } from 'node:crypto';
import { parseHostPort } from '../core/addresses.ts';
import type { Clock, Random } from '../core/clock.ts';
import { defaultClusterSpec } from '../core/defaults.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import type { ManagerHealthService } from '../proto/generated/control.ts';
import { type Channel, openTlsChannel } from '../rpc/client.ts';
import type { Handlers } from '../rpc/server.ts';
import { clientCredentials } from '../rpc/tls.ts';
import { runAllocatorLoop } from './allocator/allocator-loop.ts';
import { type Bootstrap, bootstrap } from './bootstrap.ts';
import type { CertificateTool } from './ca/certificate-tool.ts';
import { membershipHandlers } from './ca/membership-api.ts';
import { nodeCaHandlers } from './ca/node-ca.ts';
import { runRoleLoop } from './ca/role-loop.ts';
import { runRotationLoop } from './ca/rotation-loop.ts';
import { runSpareLoop } from './capacity/spare-loop.ts';
import { controlHandlers } from './control/control-api.ts';
import { createLog, type LogCreation, logDirectory } from './create-log.ts';
import { Dispatcher } from './dispatcher/dispatcher.ts';
import type { IdentityHolder } from './identity-holder.ts';
import {
  beginAnew,
  type StayMemberOptions,
  stayMember,
  TakenOutError,
  type VouchedManagers,
} from './join-managers.ts';
import { runWhileLeading } from './lead.ts';
import { LeaderChannel } from './leader-link.ts';
import { managerLog } from './log.ts';
import { LogBroker } from './log-broker.ts';
import { ManagerMetrics } from './metrics.ts';
import { runDrainLoop } from './orchestrator/drain-loop.ts';
import { runEvictionLoop } from './orchestrator/eviction-loop.ts';
import { runLostNodesLoop } from './orchestrator/lost-nodes-loop.ts';
import { runReaperLoop } from './orchestrator/reaper-loop.ts';
import { runRebalanceLoop } from './orchestrator/rebalance-loop.ts';
import { runServiceLoop } from './orchestrator/service-loop.ts';
import { type GrpcPeers, PEER_CHANNEL_OPTIONS } from './raft-host/grpc-peers.ts';
import { RaftHost } from './raft-host/raft-host.ts';
import { pooled } from './random-pool.ts';
import { Scheduler } from './scheduler/scheduler-loop.ts';
import { Servers } from './servers.ts';
import type { ReplicatedLog } from './store/replicated-log.ts';
import { Store } from './store/store.ts';

export interface ManagerOptions
  extends Pick<
    LogCreation,
    'stateDirectory' | 'nodeId' | 'clusterId' | 'advertiseAddress' | 'etcd' | 'forceNewCluster' | 'unlockKeys'
  > {
  /** For operators: mode 0660. */
  readonly controlSocket: string;
  /** For the node and its agent: mode 0600. */
  readonly managerSocket: string;
  /** host:port on which other nodes are served. */
  readonly listenAddress: string;
  /** Of the first manager: what the cluster begins with. */
  readonly founding?: Bootstrap;
  /** host:port of managers that let this one in; none on the first. */
  readonly managers: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly tool: CertificateTool;
  readonly identity: IdentityHolder;
}

/** Runs until the signal aborts. Throws when the log cannot be opened or an address not be had. */
export async function runManager(options: ManagerOptions, signal: AbortSignal): Promise<void> {
  try {
    await runMember(options, signal);
  } catch (error) {
    if (error instanceof TakenOutError) await beginAnew(logDirectory(options.stateDirectory));
    throw error;
  }
}

async function runMember(options: ManagerOptions, signal: AbortSignal): Promise<void> {
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const state: State = { metrics: undefined, peers: undefined, store: undefined };
  await using log = await openLog(options, state, { failed, signal });
  const store = new Store(log, options.clock, (operation, durationMs) =>
    state.metrics?.observe(`swarm_store_${operation.replace('-', '_')}_latency_seconds`, durationMs),
  );
  state.store = store;
  await store.open();

  const parts = assemble(options, { log, store });
  const { metrics, health, servers, leader } = assembleDoors(options, parts, state.peers);
  state.metrics = metrics;
  // Without it a loop that waits for a majority would keep the manager from ending.
  const ended = afterAbort(stop, () => endLog(log));
  try {
    const isListening = servers.listen({
      ...options,
      listen: parseHostPort(options.listenAddress, 'listen-addr'),
    });
    followUnlockKey(store, parts.consensus, options.unlockKeys, failed);
    const leading = runWhileLeading(log, leadership(options, parts, metrics), stop);
    leading.catch((error) => failed.abort(error));
    isListening
      .then(() => stayMember(memberOptions(options, parts, health), stop))
      .catch((error) => failed.abort(error));
    managerLog.info({ 'node.id': options.nodeId, 'cluster.id': options.clusterId }, 'manager is ready');
    await leading;
  } finally {
    // The next leader has to be heard to be believed.
    if (stop.aborted) await ended;
    servers.stop();
    leader.close();
  }
  if (failed.signal.aborted) throw failed.signal.reason;
}

/** What is made later than the log that needs it. */
interface State {
  metrics: ManagerMetrics | undefined;
  peers: GrpcPeers | undefined;
  store: Store | undefined;
}

function openLog(
  options: ManagerOptions,
  state: State,
  { failed, signal }: { readonly failed: AbortController; readonly signal: AbortSignal },
): Promise<ReplicatedLog> {
  const connect = connector(options);
  const spec = () => [...(state.store?.view.cluster.values() ?? [])][0]?.spec ?? defaultClusterSpec;
  return createLog({
    ...options,
    snapshotInterval: () => spec().snapshotInterval,
    isFounder: options.founding !== undefined,
    connect: ({ address, nodeId }) => connect(address, nodeId),
    onPeers: (made) => {
      state.peers = made;
    },
    observe: (name, durationMs) => state.metrics?.observe(name, durationMs),
    onFatal: (error) => {
      managerLog.fatal({ error: messageOf(error) }, 'the log cannot be written; the manager ends');
      failed.abort(error);
    },
    signal,
  });
}

/** Connects to the manager at host:port; with a node id, to that one and no other. */
function connector({ identity, clusterId }: ManagerOptions) {
  return (address: string, nodeId?: string): Channel =>
    openTlsChannel(
      address,
      clientCredentials(identity.current, { clusterId, ...(nodeId !== undefined && { nodeId }) }),
      PEER_CHANNEL_OPTIONS,
    );
}

interface Parts {
  readonly log: ReplicatedLog;
  readonly consensus: RaftHost | undefined;
  readonly store: Store;
  readonly logBroker: LogBroker;
  readonly dispatcher: Dispatcher;
  readonly connect: ReturnType<typeof connector>;
}

function assemble(options: ManagerOptions, { log, store }: Pick<Parts, 'log' | 'store'>): Parts {
  const { clock, random } = options;
  const logBroker = new LogBroker(clock, randomBytes);
  return {
    log,
    consensus: log instanceof RaftHost ? log : undefined,
    store,
    logBroker,
    dispatcher: new Dispatcher({ store, clock, random, randomBytes, logBroker }),
    connect: connector(options),
  };
}

function assembleDoors(
  { nodeId, clusterId, identity, clock, tool }: ManagerOptions,
  { log, consensus, store, logBroker, dispatcher, connect }: Parts,
  peers: GrpcPeers | undefined,
) {
  const leader = new LeaderChannel({ log, clock, connect, identity });
  const metrics = new ManagerMetrics({
    view: () => store.view,
    leadership: () => log.leadership,
    appliedIndex: () => log.appliedIndex,
    raft: () => consensus?.status,
    sessions: () => dispatcher.sessionCount,
  });
  const health = new Health(log, consensus, metrics);
  const servers = new Servers({
    nodeId,
    clusterId,
    store,
    metrics,
    leader,
    identity,
    peers,
    control: controlHandlers({
      store,
      clock,
      randomBytes,
      logBroker,
      questions: dispatcher.questions,
      reach: dispatcher.reach,
      tool,
      consensus,
      leaderAddress: () => log.leadership.leaderAddress,
      backup: () => backupOf(log),
    }),
    dispatcher: dispatcher.handlers,
    nodeCa: nodeCaHandlers({ store, clock, randomBytes, tool }),
    membership: membershipHandlers({
      store,
      clock,
      consensus,
      connect: (member) => connect(member.address, member.nodeId),
    }),
    health: health.handlers,
    vouched: () => health.vouched,
  });
  return { leader, metrics, health, servers };
}

/** What only the leader does, for as long as it leads. */
function leadership(
  options: ManagerOptions,
  { store, consensus, dispatcher }: Parts,
  metrics: ManagerMetrics,
): (leading: AbortSignal) => Promise<void> {
  const { clock, nodeId } = options;
  const counted = (loop: string) => ({ store, clock, onFailure: () => metrics.countLoopFailure(loop) });
  const onScheduled = (delayMs: number) =>
    metrics.observe('swarm_dispatcher_scheduling_delay_seconds', delayMs);
  const hasSession = (id: string) => dispatcher.hasSession(id);
  let { founding } = options;
  return async (leading) => {
    if (founding !== undefined) await bootstrap({ ...options, store, randomBytes }, founding);
    founding = undefined;
    const scheduler = new Scheduler({ ...counted('scheduler'), onScheduled });
    await Promise.all([
      dispatcher.run(leading),
      runAllocatorLoop(counted('allocator'), leading),
      scheduler.run(leading),
      runServiceLoop(
        { ...counted('services'), randomBytes: pooled(randomBytes), placer: scheduler },
        leading,
      ),
      runEvictionLoop(counted('eviction'), leading),
      runLostNodesLoop(counted('lost-nodes'), leading),
      runDrainLoop(counted('drain'), leading),
      runRebalanceLoop(counted('rebalance'), leading),
      runSpareLoop(
        { store, clock, book: scheduler.book, onCount: (services) => metrics.noteSpare(services) },
        leading,
      ),
      runReaperLoop(counted('reaper'), leading),
      runRoleLoop({ ...counted('role'), consensus, selfId: nodeId, hasSession }, leading),
      runRotationLoop({ ...counted('rotation'), randomBytes }, leading),
    ]);
  };
}

function memberOptions(
  { nodeId, advertiseAddress, managers, clock }: ManagerOptions,
  { consensus, connect }: Parts,
  health: Health,
): StayMemberOptions {
  return {
    status: () => consensus?.status,
    nodeId,
    advertiseAddress,
    managers,
    connect,
    clock,
    onProblem: (problem) => {
      health.problem = problem;
    },
    onVouched: (managers) => {
      health.vouched = managers;
    },
  };
}

function afterAbort(signal: AbortSignal, act: () => Promise<void>): Promise<void> {
  if (signal.aborted) return act();
  return new Promise((resolve, reject) =>
    signal.addEventListener('abort', () => act().then(resolve, reject), { once: true }),
  );
}

/** A leader that stops hands its leadership on: nobody has to notice that it is gone. */
async function endLog(log: ReplicatedLog): Promise<void> {
  const hasOthers = log instanceof RaftHost && log.status.peers.some(({ isConnected }) => isConnected);
  if (log.leadership.isLeader && hasOthers)
    await log
      .transferLeadership()
      .catch((error) => managerLog.warn({ error: messageOf(error) }, 'leadership is left and not handed on'));
  await log[Symbol.asyncDispose]();
}

/** The keys of the log are wrapped as the cluster says. A key that cannot be stored is as bad as a log that cannot. */
function followUnlockKey(
  store: Store,
  consensus: RaftHost | undefined,
  unlockKeys: readonly string[],
  failed: AbortController,
): void {
  if (consensus === undefined) return;
  let current = unlockKeys[0] ?? '';
  const follow = () => {
    const [cluster] = store.view.cluster.values();
    const wanted = cluster?.secrets.unlockKey ?? current;
    if (wanted === current) return;
    current = wanted;
    consensus.setUnlockKey(wanted === '' ? undefined : wanted).catch((error) => failed.abort(error));
  };
  store.subscribe(({ decisive }) => {
    if (decisive.some(({ kind }) => kind === 'cluster')) follow();
  });
  follow();
}

/** What the daemon asks its manager. */
class Health {
  problem = '';
  vouched: VouchedManagers | undefined;
  readonly #log: ReplicatedLog;
  readonly #consensus: RaftHost | undefined;
  readonly #metrics: ManagerMetrics;

  constructor(log: ReplicatedLog, consensus: RaftHost | undefined, metrics: ManagerMetrics) {
    this.#log = log;
    this.#consensus = consensus;
    this.#metrics = metrics;
  }

  get handlers(): Handlers<typeof ManagerHealthService> {
    return {
      check: () => {
        const { self, configuration } = this.#consensus?.status ?? {};
        const member = self === undefined || configuration?.voters.includes(self.id) === true;
        return { leader: this.#log.leadership.isLeader, member, problem: this.problem };
      },
      metrics: async () => ({ text: await this.#metrics.text() }),
    };
  }
}

function backupOf(log: ReplicatedLog): AsyncIterable<Uint8Array> {
  if (log instanceof RaftHost) return log.backup();
  throw new SwarmError('failed-precondition', "backup: the cluster's state is kept in etcd", {
    hint: 'Back up etcd itself, for instance with "etcdctl snapshot save".',
  });
}
