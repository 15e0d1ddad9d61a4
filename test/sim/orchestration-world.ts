// The whole orchestration under one seed: three managers with all their control loops, whose leader changes at any moment;
// machines that run tasks, crash, report late and lose their sessions; operators who change their minds. In the end all
// faults stop, and everything has to become what was asked for.

import { defaultClusterNetwork, defaultClusterSpec } from '../../core/defaults.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import {
  emptyClusterSecrets,
  emptyMeta,
  emptyNetwork,
  emptyNetworkSpec,
  emptyNodeDescription,
  type Node,
} from '../../core/generated/objects.ts';
import { newId } from '../../core/ids.ts';
import type { StoreEvent } from '../../manager/store/apply-entry.ts';
import type { Transaction } from '../../manager/store/transaction.ts';
import { ControlService } from '../../proto/generated/control.ts';
import type { Member } from '../../proto/generated/raft.ts';
import { createClient } from '../../rpc/client.ts';
import { seededChance } from '../support/faults.ts';
import { Violation } from './core-checks.ts';
import { type MachineSize, SimAgent } from './orchestration-agent.ts';
import { OrchestrationChecks } from './orchestration-checks.ts';
import { OrchestrationManager } from './orchestration-manager.ts';
import { CALL, type Control, Operators } from './orchestration-operators.ts';
import { unrest } from './orchestration-rest.ts';
import { type Doors, SimNetwork, SimProcess } from './sim-calls.ts';
import { type CrashKind, SimDisk } from './sim-disk.ts';
import { SimPeers } from './sim-peers.ts';
import type { Luck } from './sim-tasks.ts';
import { VirtualTime } from './virtual-time.ts';

const MANAGERS = 3;
const START_MS = 30_000;
/** After the last fault: restarts back off for five minutes, and updates say after their deadlines that they wait. */
const HEAL_MS = 15 * 60_000;
/** A message to each node, and what comes and goes whatever happens. */
const FILES_MS = 60_000;
const STEP_MS = 250;
const PLAIN_SIZE: MachineSize = { cpus: 4, memoryBytes: 8 * 2 ** 30, architecture: 'x86_64', generic: [] };
const JOIN_AGAIN_MS = 10_000;

export interface OrchestrationOptions {
  readonly agents?: number;
  /** Nothing fails but what the test makes fail. */
  readonly isCalm?: boolean;
  readonly snapshotInterval?: number;
  readonly cpus?: number;
  /** Hears of every entry once. */
  readonly onCommit?: (events: readonly StoreEvent[]) => void;
}

interface ManagerMachine {
  readonly name: string;
  readonly member: Member;
  disk: SimDisk;
  diskDelayMs: number;
  skewMs: number;
  process: SimProcess | undefined;
  manager: OrchestrationManager | undefined;
}

export class OrchestrationWorld {
  readonly time = new VirtualTime();
  readonly checks: OrchestrationChecks;
  readonly faults = new Map<string, number>();
  readonly agents: SimAgent[];
  readonly #chance: () => number;
  readonly #network: SimNetwork;
  readonly #peers: SimPeers<OrchestrationManager>;
  readonly #managers: ManagerMachine[];
  readonly #luck: Luck;
  readonly #operators: Operators;
  readonly #clusterId: string;
  readonly #addresses: readonly string[];
  readonly #snapshotInterval: number;
  readonly #desk: SimProcess;
  #isHealed = false;

  constructor(seed: number, options: OrchestrationOptions = {}) {
    this.#chance = seededChance(seed);
    this.checks = new OrchestrationChecks(options.onCommit);
    this.#network = new SimNetwork(this.time, this.#chance);
    this.#luck = { rejectRatio: 0, failRatio: 0, slowRatio: 0 };
    this.#operators = new Operators(this.#chance);
    this.#snapshotInterval = options.snapshotInterval ?? 200;
    this.#clusterId = newId(this.#randomBytes);
    this.#desk = new SimProcess('desk', this.time, () => 0);
    this.#isHealed = options.isCalm ?? false;
    this.#peers = new SimPeers({
      network: this.#network,
      chance: this.#chance,
      processOf: ({ options: { process } }) => process,
      isConnected: (from, to) => !this.#network.isCut(from.doors.process.machine, to.doors.process.machine),
      isLost: () => !this.#isHealed && this.#chance() < this.#network.lossRatio,
    });
    this.#managers = Array.from({ length: MANAGERS }, (_, index) => this.#newManagerMachine(index + 1));
    const count = options.agents ?? 4 + Math.floor(this.#chance() * 9);
    const addresses = this.#managers.map(({ member }) => member.address);
    this.#addresses = addresses;
    this.agents = Array.from({ length: count }, (_, index) =>
      this.#newAgent(
        `a${index + 1}`,
        options.isCalm ? { ...PLAIN_SIZE, cpus: options.cpus ?? 4 } : this.#anySize(),
      ),
    );
  }

  #newAgent(name: string, size: MachineSize): SimAgent {
    return new SimAgent({
      name,
      nodeId: newId(this.#randomBytes),
      network: this.#network,
      chance: this.#chance,
      luck: this.#luck,
      managers: this.#addresses,
      size,
      onStarted: ({ options: { nodeId } }, container, all) => this.checks.started(nodeId, container, all),
    });
  }

  #anySize(): MachineSize {
    const cards = ['g0', 'g1', 'g2', 'g3'].filter(() => this.#chance() < 0.4);
    const generic = [
      { kind: 'GPU', count: cards.length, names: cards },
      { kind: 'SSD', count: Math.floor(this.#chance() * 3), names: [] },
    ];
    return {
      cpus: 2 + Math.floor(this.#chance() * 4),
      memoryBytes: (2 + Math.floor(this.#chance() * 7)) * 2 ** 30,
      architecture: this.#chance() < 0.8 ? 'x86_64' : 'aarch64',
      generic,
    };
  }

  /** Lives through so much virtual time with faults, then without, and checks everything. Throws a Violation. */
  async run(durationMs: number): Promise<void> {
    await this.begin();
    await this.carryOut((control) => this.#operators.prepare(control));
    this.#luck.rejectRatio = 0.02;
    this.#luck.failRatio = 0.3;
    this.#luck.slowRatio = 0.02;
    if (this.#chance() < 0.5) this.#network.lossRatio = this.#chance() * 0.1;
    this.#planFault();
    this.#planOrder();
    await this.advance(durationMs);
    await this.#heal();
  }

  /** Everybody is there. */
  async begin(): Promise<void> {
    for (const machine of this.#managers) this.#start(machine);
    for (const agent of this.agents) agent.start();
    await this.until('everybody', START_MS, () => {
      const leader = this.leader;
      if (leader === undefined || leader.store.view.node.size === 0) return 'nobody leads';
      const away = [...leader.store.view.node.values()].find(({ status }) => status.state !== 'ready');
      return away && `${away.description.hostname} is ${away.status.state}`;
    });
  }

  /** What all operators' calls go through: any manager. A refusal is an answer. */
  async operate(act: (control: Control) => Promise<unknown>): Promise<void> {
    const open = this.#managers.filter(({ manager }) => manager?.isOpen);
    const machine = open[Math.floor(this.#chance() * open.length)];
    if (machine === undefined) return;
    const caller = { role: 'manager', nodeId: machine.member.nodeId } as const;
    const doors = (): Doors | undefined => this.#network.doors.get(machine.member.address);
    const channel = this.#network.channel(this.#desk, doors, () => ({
      identity: undefined,
      expected: {},
      caller,
    }));
    try {
      await act(createClient(ControlService, channel));
    } catch (error) {
      if (!(error instanceof SwarmError)) this.checks.fail('operators', error);
      if (error instanceof SwarmError && error.code === 'internal') this.checks.fail('operators', error);
    }
  }

  /** The same, with time going on until it is done. */
  async carryOut(act: (control: Control) => Promise<unknown>): Promise<void> {
    let isDone = false;
    void this.operate(act).then(() => {
      isDone = true;
    });
    await this.until('an answer', START_MS, () => (isDone ? undefined : 'operators wait'));
  }

  // --- managers ---

  #newManagerMachine(id: number): ManagerMachine {
    const machine: ManagerMachine = {
      name: `m${id}`,
      member: { id, nodeId: newId(this.#randomBytes), address: `10.0.0.${id}:2377` },
      disk: new SimDisk({
        chance: this.#chance,
        schedule: (complete) =>
          this.time.after(
            machine.diskDelayMs * (this.#chance() < 0.01 ? 50 : 1) * (0.5 + this.#chance()),
            complete,
          ),
      }),
      diskDelayMs: 0.2,
      skewMs: 0,
      process: undefined,
      manager: undefined,
    };
    return machine;
  }

  #start(machine: ManagerMachine): void {
    if (machine.process !== undefined) return;
    const process = new SimProcess(machine.name, this.time, () => machine.skewMs);
    const manager = new OrchestrationManager({
      process,
      disk: machine.disk,
      clusterId: this.#clusterId,
      self: machine.member,
      founders: this.#managers.map(({ member }) => member),
      chance: this.#chance,
      randomBytes: this.#randomBytes,
      network: this.#network,
      peers: this.#peers,
      checks: this.checks,
      found: (tx) => this.#found(tx),
      snapshotInterval: this.#snapshotInterval,
    });
    machine.process = process;
    machine.manager = manager;
    manager.run().catch((error) => {
      if (machine.process !== process || !process.isAlive) return;
      if (/simulated|no room|disk/.test(messageOf(error))) this.#crash(machine, 'process', 500);
      else this.checks.fail('managers', error);
    });
  }

  #crash(machine: ManagerMachine, kind: CrashKind, downMs: number): void {
    if (machine.process === undefined) return;
    machine.process.die();
    machine.process = undefined;
    machine.manager = undefined;
    this.#network.doors.delete(machine.member.address);
    machine.disk = machine.disk.crash(kind);
    this.time.after(downMs, () => this.#start(machine));
  }

  #found(tx: Transaction): void {
    const spec = { ...defaultClusterSpec, heartbeatPeriodMs: 2_000, taskHistoryLimit: 3 };
    const network = { ...defaultClusterNetwork };
    tx.create('cluster', {
      id: this.#clusterId,
      meta: emptyMeta,
      spec,
      secrets: emptyClusterSecrets,
      network,
    });
    const ingress = { ...emptyNetworkSpec, name: 'ingress', ingress: true };
    tx.create('network', { ...emptyNetwork, id: newId(this.#randomBytes), spec: ingress });
    for (const { options } of this.agents) tx.create('node', newNode(options.nodeId, this.#chance() < 0.6));
  }

  get leader(): OrchestrationManager | undefined {
    return this.#managers
      .flatMap(({ manager }) => (manager?.isOpen && manager.isLeading ? [manager] : []))
      .sort((a, b) => b.host.leadership.term - a.host.leadership.term)[0];
  }

  readonly #randomBytes = (count: number): Buffer =>
    Buffer.from(Array.from({ length: count }, () => Math.floor(this.#chance() * 256)));

  // --- faults ---

  killLeader(): void {
    const machine = this.#managers.find(({ manager }) => manager === this.leader);
    if (machine !== undefined) this.#crash(machine, 'process', 2_000);
  }

  pauseLeader(durationMs: number): void {
    const machine = this.#managers.find(({ manager }) => manager === this.leader);
    if (machine !== undefined) this.#pause(machine, durationMs);
  }

  #planOrder(): void {
    this.time.after(100 + this.#chance() * 3_000, () => {
      if (this.#isHealed) return;
      const { name, act } = this.#operators.draw();
      this.#count(name);
      void this.operate(act);
      this.#planOrder();
    });
  }

  #planFault(): void {
    this.time.after(300 + this.#chance() * 5_000, () => {
      if (this.#isHealed) return;
      this.#fault();
      this.#planFault();
    });
  }

  #fault(): void {
    const machine = this.#pick(this.#managers);
    const leading = this.#managers.find(({ manager }) => manager?.isLeading) ?? machine;
    const agent = this.#pick(this.agents);
    const acts: Record<string, () => void> = {
      'kill a manager': () => this.#crash(machine, 'process', this.#chance() * 4_000),
      'kill the leader': () => this.#crash(leading, 'process', this.#chance() * 4_000),
      'cut the power of a manager': () => this.#crash(machine, 'power', this.#chance() * 8_000),
      'pause the leader': () => this.#pause(leading, 500 + this.#chance() * 6_000),
      'hand leadership on': () => {
        if (leading.manager?.isOpen) void leading.manager.host.transferLeadership().catch(refused);
      },
      'slow a disk': () => {
        machine.diskDelayMs = this.#chance() < 0.5 ? 0.2 : this.#chance() * 40;
      },
      'isolate the leader': () => this.#isolate(leading.name),
      'isolate a machine': () => this.#isolate(agent.options.name),
      cut: () => this.#cut(),
      mend: () => this.#network.blocked.clear(),
      'mend again': () => this.#network.blocked.clear(),
      'set a clock': () => {
        machine.skewMs = (this.#chance() - 0.5) * 1_000;
        agent.skewMs = (this.#chance() - 0.5) * 1_000;
      },
      'end a daemon': () => this.#crashAgent(agent, 'daemon', this.#chance() * 5_000),
      'end a daemon for long': () => this.#crashAgent(agent, 'daemon', 10_000 + this.#chance() * 20_000),
      'cut the power of a machine': () => this.#crashAgent(agent, 'power', this.#chance() * 20_000),
      'lose a disk': () => this.#crashAgent(agent, 'disk', this.#chance() * 20_000),
      'come back with another size': () => this.#resize(agent),
      'come back with another size again': () => this.#resize(agent),
      'remove a machine, which joins again': () => this.#rejoin(agent),
      'lose half of the machines and the leader': () => {
        for (const each of this.agents)
          if (this.#chance() < 0.5) this.#crashAgent(each, 'daemon', 8_000 + this.#chance() * 10_000);
        if (this.#chance() < 0.5) this.#crash(leading, 'process', this.#chance() * 4_000);
      },
      'drain while the leader changes': () => {
        void this.operate((control) => this.#operators.drain(control));
        this.time.after(this.#chance() * 500, () => this.#crash(leading, 'process', this.#chance() * 4_000));
      },
      'pause a daemon': () => {
        if (agent.process) agent.process.clock.pausedUntilMs = this.time.nowMs + this.#chance() * 12_000;
      },
    };
    const name = this.#pick(Object.keys(acts));
    this.#count(name);
    acts[name]?.();
  }

  #count(name: string): void {
    this.faults.set(name, (this.faults.get(name) ?? 0) + 1);
  }

  #pause({ process }: ManagerMachine, durationMs: number): void {
    if (process !== undefined) process.clock.pausedUntilMs = this.time.nowMs + durationMs;
  }

  #crashAgent(agent: SimAgent, kind: 'daemon' | 'power' | 'disk', downMs: number): void {
    agent.crash(kind);
    this.time.after(downMs, () => agent.start());
  }

  /** As when somebody has put in or taken out memory or cards, or tells the daemon of others. */
  #resize(agent: SimAgent): void {
    this.#crashAgent(agent, this.#chance() < 0.5 ? 'daemon' : 'power', this.#chance() * 5_000);
    agent.size = this.#anySize();
  }

  /** Nothing of it is left; what joins again is another node with the same name. */
  #rejoin(agent: SimAgent): void {
    agent.crash('disk');
    agent.isGone = true;
    void this.operate((control) => control.removeNode({ node: agent.options.nodeId, force: true }, CALL));
    const next = this.#newAgent(agent.options.name, this.#anySize());
    this.agents[this.agents.indexOf(agent)] = next;
    this.time.after(this.#chance() * 5_000, () => this.#join(next));
  }

  #join(agent: SimAgent): void {
    const { nodeId } = agent.options;
    const { store } = this.leader ?? {};
    const again = () => this.time.after(500, () => this.#join(agent));
    if (store === undefined) again();
    else if (store.view.node.get(nodeId) !== undefined) agent.start();
    else {
      store
        .update((tx) => tx.create('node', newNode(nodeId, this.#chance() < 0.6)))
        .then(() => agent.start(), again);
      // A leader that dies over it never answers.
      this.time.after(JOIN_AGAIN_MS, () => {
        if (agent.process === undefined) this.#join(agent);
      });
    }
  }

  #cut(): void {
    const names = this.#names;
    const side = new Map(names.map((name) => [name, this.#chance() < 0.5]));
    for (const from of names)
      for (const to of names) if (side.get(from) !== side.get(to)) this.#network.blocked.add(`${from}>${to}`);
  }

  #isolate(name: string): void {
    for (const other of this.#names) if (other !== name) this.#network.blocked.add(`${name}>${other}`);
  }

  get #names(): string[] {
    return [...this.#managers.map(({ name }) => name), ...this.agents.map(({ options }) => options.name)];
  }

  // --- the end ---

  async #heal(): Promise<void> {
    this.#isHealed = true;
    this.#network.blocked.clear();
    this.#network.lossRatio = 0;
    Object.assign(this.#luck, { rejectRatio: 0, failRatio: 0, slowRatio: 0 });
    for (const machine of this.#managers) {
      machine.skewMs = 0;
      machine.diskDelayMs = 0.2;
    }
    for (const agent of this.agents) agent.skewMs = 0;
    await this.advance(20_000);
    const ids = new Set(this.agents.map(({ options }) => options.nodeId));
    // Who meets a change of the same node, or of the leader, is refused, and does it again.
    let isOpen = false;
    while (!isOpen)
      await this.carryOut(async (control) => {
        await this.#operators.reopen(control, ids);
        isOpen = true;
      });
    await this.until('rest', HEAL_MS, () => this.unrest());
    // Where nothing else happens, nobody hears of them by the way.
    await this.carryOut((control) => this.#operators.renewFiles(control));
    await this.until('rest after new versions of files', FILES_MS, () => this.unrest());
  }

  /** Why the cluster is not at rest; undefined: it is. */
  unrest(): string | undefined {
    const leader = this.leader;
    if (leader === undefined) return 'nobody leads';
    return unrest(leader.store.view, leader.options.process.clock.nowMs(), this.agents);
  }

  async until(what: string, limitMs: number, problem: () => string | undefined): Promise<void> {
    for (const endMs = this.time.nowMs + limitMs; this.time.nowMs < endMs; ) {
      await this.advance(STEP_MS * 4);
      if (problem() === undefined) return;
    }
    throw new Violation('liveness', `${what} is not there after ${limitMs / 1000} s: ${problem()}`);
  }

  async advance(durationMs: number): Promise<void> {
    for (const endMs = this.time.nowMs + durationMs; this.time.nowMs < endMs; ) {
      await this.time.advanceTo(Math.min(endMs, this.time.nowMs + STEP_MS));
      if (this.checks.failure !== undefined) throw this.checks.failure;
    }
  }

  /** Nodes, services and their tasks, a line each, for the report of a failure. */
  describe(): string {
    const managers = this.#managers.map(({ name, manager }) => {
      if (manager === undefined) return `${name} down`;
      return `${name} ${manager.host.status.role} term ${manager.host.status.term} applied ${manager.host.appliedIndex}`;
    });
    const view = (this.leader ?? this.#managers.find(({ manager }) => manager?.isOpen)?.manager)?.store.view;
    if (view === undefined) return managers.join('\n');
    const nodes = [...view.node.values()].map(
      ({ id, spec, status, description }) =>
        `${id} ${description.hostname} ${status.state} ${spec.availability} ${JSON.stringify(spec.labels)} ${description.resources.cpuNanos / 1e9} CPUs ${JSON.stringify(description.genericResources)}`,
    );
    const services = [...view.service.values()].flatMap((service) => {
      const { id, spec, specVersion, updateStatus } = service;
      const { placement, resources, restart, container } = spec.task;
      const shape = {
        stopped: spec.stopped,
        env: container.env,
        placement,
        reserved: resources.reservations.cpuNanos,
        generic: resources.generic,
        restart,
        ports: spec.endpoint.ports,
        update: spec.update,
      };
      return [
        `${spec.name} ${id} v${specVersion} ${JSON.stringify(spec.mode)} ${JSON.stringify(updateStatus)} ${JSON.stringify(shape)}`,
        ...view
          .tasksOfService(id)
          .map(
            ({ id: task, slot, nodeId, specVersion: of, status, desiredState, notBeforeMs, eviction }) =>
              `  ${task} v${of} slot ${slot} on ${nodeId} is ${status.state}, to be ${desiredState}, not before ${notBeforeMs}: ${status.error}${eviction ?? ''}`,
          ),
      ];
    });
    return [`at ${this.time.nowMs}`, ...managers, ...nodes, ...services].join('\n');
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#chance() * values.length)] as T;
  }
}

function newNode(id: string, isInZoneA: boolean): Node {
  return {
    id,
    meta: emptyMeta,
    spec: {
      name: '',
      labels: { zone: isInZoneA ? 'a' : 'b' },
      availability: 'active',
      desiredRole: 'worker',
    },
    description: emptyNodeDescription,
    status: { state: 'unknown', message: '', address: '', sinceMs: 0 },
    role: 'worker',
    roleMessage: '',
    renewalAskedAtMs: 0,
    dataPathAddress: '',
    tunnelAddress: '',
  };
}

function refused(error: unknown): void {
  if (!(error instanceof SwarmError)) throw new Error(messageOf(error), { cause: error });
}
