// A manager of the simulated orchestration: the real log, store, dispatcher, control handlers and every loop that concerns
// services and tasks. Who may be a manager is decided already: roles and certificates are what member-world.ts is about.

import { createHash } from 'node:crypto';
import { hasCode } from '../../core/errors.ts';
import { runAllocatorLoop } from '../../manager/allocator/allocator-loop.ts';
import { controlHandlers } from '../../manager/control/control-api.ts';
import { Dispatcher } from '../../manager/dispatcher/dispatcher.ts';
import { IdentityHolder } from '../../manager/identity-holder.ts';
import { runWhileLeading } from '../../manager/lead.ts';
import { LeaderChannel } from '../../manager/leader-link.ts';
import { LogBroker } from '../../manager/log-broker.ts';
import { runDrainLoop } from '../../manager/orchestrator/drain-loop.ts';
import { runEvictionLoop } from '../../manager/orchestrator/eviction-loop.ts';
import { runLostNodesLoop } from '../../manager/orchestrator/lost-nodes-loop.ts';
import { runReaperLoop } from '../../manager/orchestrator/reaper-loop.ts';
import { runRebalanceLoop } from '../../manager/orchestrator/rebalance-loop.ts';
import { runServiceLoop } from '../../manager/orchestrator/service-loop.ts';
import type { RaftHost } from '../../manager/raft-host/raft-host.ts';
import { Scheduler } from '../../manager/scheduler/scheduler-loop.ts';
import { Store } from '../../manager/store/store.ts';
import type { Transaction } from '../../manager/store/transaction.ts';
import { ControlService } from '../../proto/generated/control.ts';
import { DispatcherService } from '../../proto/generated/dispatcher.ts';
import type { Member } from '../../proto/generated/raft.ts';
import { onLeader } from '../../rpc/forward.ts';
import type { Chance } from '../support/faults.ts';
import type { OrchestrationChecks } from './orchestration-checks.ts';
import { quickCertificates } from './quick-certificates.ts';
import { type Doors, methodsOf, type SimNetwork, type SimProcess, trunkOf } from './sim-calls.ts';
import type { SimDisk } from './sim-disk.ts';
import type { SimPeers } from './sim-peers.ts';
import { simRaftHost } from './sim-raft-host.ts';

export interface OrchestrationManagerOptions {
  readonly process: SimProcess;
  readonly disk: SimDisk;
  readonly clusterId: string;
  readonly self: Member;
  readonly founders: readonly Member[];
  readonly chance: Chance;
  readonly randomBytes: (count: number) => Buffer;
  readonly network: SimNetwork;
  readonly peers: SimPeers<OrchestrationManager>;
  readonly checks: OrchestrationChecks;
  /** What the first leader writes. */
  readonly found: (tx: Transaction) => void;
  readonly snapshotInterval: number;
}

export class OrchestrationManager {
  readonly options: OrchestrationManagerOptions;
  readonly host: RaftHost;
  readonly store: Store;
  readonly doors: Doors;
  readonly #dispatcher: Dispatcher;
  readonly #failed = new AbortController();
  /** It has been told to lead and does. */
  isLeading = false;
  isOpen = false;

  constructor(options: OrchestrationManagerOptions) {
    this.options = options;
    const { process, self, clusterId, chance, randomBytes, checks } = options;
    const { clock } = process;
    this.host = this.#newHost();
    this.store = new Store(checks.watched(this.host, hashOf), clock);
    this.#dispatcher = new Dispatcher({
      store: this.store,
      clock,
      random: chance,
      randomBytes,
      logBroker: new LogBroker(clock, randomBytes),
    });
    this.doors = {
      process,
      nodeId: self.nodeId,
      clusterId,
      identity: new IdentityHolder(),
      identify: (caller) => caller,
      onAdmitted: () => {},
      methods: new Map(this.#methods()),
    };
    this.store.subscribe(({ index, events }) => checks.committed(this.store.view, index, events));
  }

  /** Throws what ends a manager. Never returns by itself: its process dies. */
  async run(): Promise<void> {
    const { network, self } = this.options;
    const stop = this.#failed.signal;
    await this.store.open();
    this.isOpen = true;
    network.doors.set(self.address, this.doors);
    await runWhileLeading(this.host, (leading) => this.#lead(leading), stop);
    throw stop.reason;
  }

  #newHost(): RaftHost {
    const { self, founders, peers, snapshotInterval } = this.options;
    return simRaftHost(this.options, {
      self,
      founders,
      openNetwork: (member, events) => peers.open(this, member, events),
      snapshotInterval: () => snapshotInterval,
      segmentBytes: { first: 65_536, max: 1_048_576 },
      onFatal: (error) => this.#failed.abort(error),
    });
  }

  #methods() {
    const { process, randomBytes, network, self } = this.options;
    const { clock } = process;
    const { host: consensus, store } = this;
    const caller = { role: 'manager', nodeId: self.nodeId } as const;
    const leader = new LeaderChannel({
      log: consensus,
      clock,
      connect: (address) =>
        network.channel(
          process,
          () => network.doors.get(address),
          () => ({ identity: undefined, expected: {}, caller }),
        ),
      identity: new IdentityHolder(),
    });
    const control = controlHandlers({
      store,
      clock,
      randomBytes,
      logBroker: new LogBroker(clock, randomBytes),
      questions: this.#dispatcher.questions,
      reach: this.#dispatcher.reach,
      tool: quickCertificates(randomBytes, { hurry: 1 }),
      consensus,
      leaderAddress: () => consensus.leadership.leaderAddress,
      backup: () => consensus.backup(),
    });
    const dispatcher = methodsOf(
      DispatcherService,
      onLeader(DispatcherService, this.#dispatcher.handlers, leader),
    );
    return [
      ...dispatcher,
      ...trunkOf(dispatcher, clock, () => this.doors),
      ...methodsOf(ControlService, onLeader(ControlService, control, leader)),
    ];
  }

  async #lead(leading: AbortSignal): Promise<void> {
    const { process, randomBytes, found, checks } = this.options;
    const { store } = this;
    const { clock } = process;
    if (store.view.cluster.size === 0) await store.update(found);
    const onFailure = (error: unknown) => {
      if (!isOfLostLeadership(error)) checks.fail('loop', error);
    };
    const parts = { store, clock, onFailure };
    this.isLeading = true;
    const scheduler = new Scheduler(parts);
    try {
      await Promise.all([
        this.#dispatcher.run(leading),
        runAllocatorLoop(parts, leading),
        scheduler.run(leading),
        runServiceLoop({ ...parts, randomBytes, placer: scheduler }, leading),
        runEvictionLoop(parts, leading),
        runLostNodesLoop(parts, leading),
        runDrainLoop(parts, leading),
        runRebalanceLoop(parts, leading),
        runReaperLoop(parts, leading),
      ]);
    } finally {
      this.isLeading = false;
    }
  }
}

function hashOf(payload: Uint8Array): string {
  return createHash('sha1').update(payload).digest('base64');
}

/** What a loop may meet when the log cannot take its changes, or nobody knows whether it has. */
function isOfLostLeadership(error: unknown): boolean {
  return (['unavailable', 'deadline-exceeded', 'failed-precondition'] as const).some((code) =>
    hasCode(error, code),
  );
}
