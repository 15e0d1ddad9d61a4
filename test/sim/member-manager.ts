// A manager of the simulation: what manager/manager.ts puts together, less what tasks need, on a simulated disk and network.

import { sleep } from '../../core/clock.ts';
import { hasCode, messageOf } from '../../core/errors.ts';
import { type Bootstrap, bootstrap } from '../../manager/bootstrap.ts';
import type { CertificateTool } from '../../manager/ca/certificate-tool.ts';
import { membershipHandlers } from '../../manager/ca/membership-api.ts';
import { nodeCaHandlers } from '../../manager/ca/node-ca.ts';
import { runRoleLoop } from '../../manager/ca/role-loop.ts';
import { runRotationLoop } from '../../manager/ca/rotation-loop.ts';
import type { Consensus } from '../../manager/consensus.ts';
import { controlHandlers } from '../../manager/control/control-api.ts';
import { Dispatcher } from '../../manager/dispatcher/dispatcher.ts';
import type { IdentityHolder } from '../../manager/identity-holder.ts';
import { stayMember, type VouchedManagers } from '../../manager/join-managers.ts';
import { runWhileLeading } from '../../manager/lead.ts';
import { LeaderChannel } from '../../manager/leader-link.ts';
import { LogBroker } from '../../manager/log-broker.ts';
import { NodeQuestions } from '../../manager/node-questions.ts';
import { newMemberId } from '../../manager/raft-host/member-id.ts';
import type { PeerEvents, PeerNetwork } from '../../manager/raft-host/peers.ts';
import type { RaftHost } from '../../manager/raft-host/raft-host.ts';
import { ReachBroker } from '../../manager/reach-broker.ts';
import { identify, nodeCaOf } from '../../manager/servers.ts';
import { Store } from '../../manager/store/store.ts';
import { ControlService } from '../../proto/generated/control.ts';
import { DispatcherService } from '../../proto/generated/dispatcher.ts';
import { MembershipService, NodeCaService } from '../../proto/generated/membership.ts';
import type { Member } from '../../proto/generated/raft.ts';
import { onLeader } from '../../rpc/forward.ts';
import type { Chance } from '../support/faults.ts';
import type { MemberChecks } from './member-checks.ts';
import { type Doors, methodsOf, type SimNetwork, type SimProcess, trunkOf } from './sim-calls.ts';
import type { SimDisk } from './sim-disk.ts';
import { simRaftHost } from './sim-raft-host.ts';

export interface SimManagerOptions {
  readonly process: SimProcess;
  readonly disk: SimDisk;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly address: string;
  readonly managers: readonly string[];
  readonly founding: Bootstrap | undefined;
  readonly identity: IdentityHolder;
  readonly tool: CertificateTool;
  readonly chance: Chance;
  readonly randomBytes: (count: number) => Buffer;
  readonly network: SimNetwork;
  readonly checks: MemberChecks;
  /** Connects this manager with the group. */
  readonly openPeers: (manager: SimManager, self: Member, events: PeerEvents) => PeerNetwork;
}

const LAST_WORDS_MS = 5_000;

export class SimManager {
  readonly options: SimManagerOptions;
  readonly host: RaftHost;
  readonly store: Store;
  readonly doors: Doors;
  readonly #dispatcher: Dispatcher;
  readonly #failed = new AbortController();
  readonly #leader: LeaderChannel;
  isOpen = false;
  #vouched: VouchedManagers | undefined;

  constructor(options: SimManagerOptions) {
    this.options = options;
    const { process, nodeId, clusterId, identity, chance, randomBytes, network, checks } = options;
    const { clock } = process;
    this.host = this.#newHost();
    this.store = new Store(this.host, clock);
    this.#dispatcher = new Dispatcher({
      store: this.store,
      clock,
      random: chance,
      randomBytes,
      logBroker: new LogBroker(clock, randomBytes),
    });
    this.#leader = new LeaderChannel({
      log: this.host,
      clock,
      connect: (address) => this.#connect(address),
      identity,
    });
    this.doors = {
      process,
      nodeId,
      clusterId,
      identity,
      identify: (caller) => identify(this.store, caller, this.#vouched),
      onAdmitted: (caller) => checks.admitted(this.store, caller),
      methods: new Map(this.#methods()),
    };
    this.store.subscribe((commit) => {
      for (const { kind, action, object } of commit.events)
        if (kind === 'node' && action === 'removed') network.disconnect(this.doors, object.id);
      checks.committed(this, commit);
    });
  }

  /** Returns when the signal has aborted; throws what ends a manager. */
  async run(signal: AbortSignal): Promise<void> {
    const { identity, process, network, address, nodeId, managers, checks } = this.options;
    const stop = AbortSignal.any([signal, this.#failed.signal]);
    const unfollow = this.host.onLeadership(({ isLeader, term }) => {
      if (isLeader) checks.led(term, this.host.status.self.id);
    });
    try {
      await this.store.open();
      this.isOpen = true;
      const listening = Promise.withResolvers<void>();
      const stopListening = identity.follow(() => {
        network.doors.set(address, this.doors);
        listening.resolve();
      });
      const ended = new Promise<void>((resolve) =>
        stop.addEventListener('abort', () => this.#end().then(resolve), { once: true }),
      );
      const leading = runWhileLeading(this.host, (leads) => this.#lead(leads), stop);
      leading.catch((error) => this.#failed.abort(error));
      listening.promise
        .then(() =>
          stayMember(
            {
              status: () => this.host.status,
              nodeId,
              advertiseAddress: address,
              managers,
              connect: (other) => this.#connect(other),
              clock: process.clock,
              onProblem: () => {},
              onVouched: (managers) => {
                this.#vouched = managers;
              },
            },
            stop,
          ),
        )
        .catch((error) => this.#failed.abort(error));
      await leading.catch(() => {});
      await ended;
      stopListening();
    } finally {
      unfollow();
      this.#leader.close();
      this.isOpen = false;
      if (network.doors.get(address) === this.doors) network.doors.delete(address);
    }
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
  }

  #newHost(): RaftHost {
    const { nodeId, address, founding, randomBytes } = this.options;
    const self = { id: newMemberId(randomBytes), nodeId, address };
    const spec = () => [...this.store.view.cluster.values()][0]?.spec;
    return simRaftHost(this.options, {
      self,
      ...(founding && { founders: [self] }),
      openNetwork: (member, events) => this.options.openPeers(this, member, events),
      snapshotInterval: () => spec()?.snapshotInterval ?? 100,
      segmentBytes: { first: 16_384, max: 65_536 },
      onFatal: (error) => this.#failed.abort(error),
    });
  }

  #methods() {
    const { process, tool, randomBytes, checks, identity } = this.options;
    const { clock } = process;
    const { host: consensus, store } = this;
    const nodeCa = checks.watchIssuing(nodeCaHandlers({ store, clock, randomBytes, tool }), store);
    const membership = membershipHandlers({
      store,
      clock,
      consensus: this.#watched(),
      connect: (member) => this.#connect(member.address, member.nodeId),
    });
    const control = controlHandlers({
      store,
      clock,
      randomBytes,
      logBroker: new LogBroker(clock, randomBytes),
      questions: new NodeQuestions(clock, randomBytes),
      reach: new ReachBroker(clock, randomBytes),
      tool,
      consensus,
      leaderAddress: () => consensus.leadership.leaderAddress,
      backup: () => consensus.backup(),
    });
    const dispatcher = methodsOf(
      DispatcherService,
      onLeader(DispatcherService, this.#dispatcher.handlers, this.#leader),
    );
    return [
      ...dispatcher,
      ...trunkOf(dispatcher, clock, () => this.doors),
      ...methodsOf(MembershipService, onLeader(MembershipService, membership, this.#leader)),
      ...methodsOf(ControlService, onLeader(ControlService, control, this.#leader)),
      ...methodsOf(NodeCaService, nodeCaOf({ nodeCa, leader: this.#leader, identity, store })),
    ];
  }

  async #lead(leading: AbortSignal): Promise<void> {
    const { process, founding, nodeId, clusterId, address, tool, randomBytes } = this.options;
    const { store } = this;
    const { clock } = process;
    if (founding !== undefined && store.view.cluster.size === 0)
      await bootstrap(
        { store, clock, randomBytes, tool, nodeId, clusterId, advertiseAddress: address },
        founding,
      );
    const hasSession = (id: string) => this.#dispatcher.hasSession(id);
    await Promise.all([
      this.#dispatcher.run(leading),
      runRoleLoop({ store, clock, consensus: this.#watched(), selfId: nodeId, hasSession }, leading),
      runRotationLoop({ store, clock, randomBytes }, leading),
    ]);
  }

  #watched(): Consensus {
    return this.options.checks.watchConsensus(this.host);
  }

  #connect(address: string, nodeId?: string) {
    const { network, process, clusterId } = this.options;
    // A channel keeps what it was made with.
    const identity = this.options.identity.current;
    return network.channel(
      process,
      () => network.doors.get(address),
      () => ({ identity, expected: { clusterId, ...(nodeId !== undefined && { nodeId }) } }),
    );
  }

  async #end(): Promise<void> {
    const { clock } = this.options.process;
    const { host } = this;
    const hasOthers = host.status.peers.some(({ isConnected }) => isConnected);
    const limit = sleep(clock, LAST_WORDS_MS);
    if (host.leadership.isLeader && hasOthers)
      await Promise.race([host.transferLeadership().catch(ignoreRefusal), limit]);
    await Promise.race([host[Symbol.asyncDispose](), limit]);
  }
}

/** Leadership is left and not handed on. */
function ignoreRefusal(error: unknown): void {
  for (const code of ['failed-precondition', 'deadline-exceeded', 'unavailable'] as const)
    if (hasCode(error, code)) return;
  throw new Error(messageOf(error), { cause: error });
}
