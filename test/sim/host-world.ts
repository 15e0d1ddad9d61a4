// Whole members under one seed: the real host, core and log on a simulated disk, with simulated peers and time. What
// core-world.ts does to the core a million times a second is done here to everything around it: crashes at any await,
// power failures that lose and tear what was not synced, bit rot, full and slow disks, pauses, partitions, changes of
// members. In the end clients' histories must be linearizable, and all members equal.

import { messageOf, SwarmError } from '../../core/errors.ts';
import type { PeerEvents, PeerNetwork, SnapshotHead } from '../../manager/raft-host/peers.ts';
import { RaftHost } from '../../manager/raft-host/raft-host.ts';
import { mix } from '../../manager/raft-host/state-hash.ts';
import { type ApplyResult, NotLeaderError, type StateMachine } from '../../manager/store/replicated-log.ts';
import type { Member, RaftMessage } from '../../proto/generated/raft.ts';
import { seededChance } from '../support/faults.ts';
import { check } from './core-checks.ts';
import { type Operation, unexplainedRegister } from './linearizability.ts';
import { type CrashKind, SimDisk } from './sim-disk.ts';
import { ProcessClock, VirtualTime } from './virtual-time.ts';

const CLUSTER = 'simulated';
const REGISTERS = 3;
const CLIENTS = 5;
const READ_ATTEMPTS = 3;
const MEMBERS_MAX = 7;
const PATIENCE_MS = 4_000;
const HEAL_MS = 30_000;

class Registers implements StateMachine {
  values: number[] = new Array<number>(REGISTERS).fill(0);
  /** Of all values that were ever applied here. */
  highest = 0;

  apply(index: number, payload: Uint8Array): ApplyResult {
    const bytes = Buffer.from(payload);
    this.values[bytes.readUInt8(0)] = bytes.readUInt32BE(1);
    this.highest = Math.max(this.highest, bytes.readUInt32BE(1));
    return { applied: true, index, digest: this.values.reduce(mix, 0) };
  }

  snapshot(): Iterable<Uint8Array> {
    return this.values.map((value, register) => entryOf(register, value));
  }

  async restore(_index: number, records: AsyncIterable<readonly Uint8Array[]>): Promise<void> {
    const fresh = new Registers();
    for await (const chunk of records) for (const record of chunk) fresh.apply(0, record);
    this.values = fresh.values;
  }
}

/** A process ended because its state was not that of the others. */
export function isDivergence(reason: string): boolean {
  return reason.includes('is not that of the others');
}

/** Some padding, so that segments and snapshots come and go. */
export function entryOf(register: number, value: number): Buffer {
  const bytes = Buffer.alloc(5 + (value % 200));
  bytes.writeUInt8(register, 0);
  bytes.writeUInt32BE(value, 1);
  return bytes;
}

export interface HostWorldOptions {
  /** Founders; otherwise as the seed has it. */
  readonly size?: number;
  /** Nothing fails but what a test makes fail. */
  readonly isCalm?: boolean;
  readonly lowWatermarkBytes?: number;
}

/** One machine: its disk outlives its processes. */
export class Machine {
  member: Member;
  disk: SimDisk;
  host: RaftHost | undefined;
  registers = new Registers();
  clock: ProcessClock;
  events: PeerEvents | undefined;
  /** Counts processes: what belongs to an earlier one is ignored. */
  generation = 0;
  isOpen = false;
  /** The disk was found to be damaged: it has to come back as a new member. */
  isLost = false;
  /** Why its processes have ended by themselves. */
  readonly fatal: string[] = [];
  diskDelayMs = 0.2;

  constructor(member: Member, disk: SimDisk, clock: ProcessClock) {
    this.member = member;
    this.disk = disk;
    this.clock = clock;
  }
}

export class HostWorld {
  readonly seed: number;
  readonly time = new VirtualTime();
  readonly history: Operation[] = [];
  readonly faults = new Map<string, number>();
  readonly #options: HostWorldOptions;
  readonly #chance: () => number;
  readonly #machines: Machine[] = [];
  readonly #blocked = new Set<string>();
  #founders: readonly Member[];
  #nextId = 1;
  #values = 0;
  #isHealed = false;
  #isRotten = false;
  #lossRatio = 0;
  #failure: unknown;

  constructor(seed: number, options: HostWorldOptions = {}) {
    this.seed = seed;
    this.#options = options;
    this.#chance = seededChance(seed);
    const drawn = [1, 3, 3, 3, 5][Math.floor(this.#chance() * 5)] ?? 3;
    const size = options.size ?? drawn;
    for (let count = 0; count < size; count++) this.#addMachine();
    this.#founders = this.#machines.map(({ member }) => member);
    this.#lossRatio = this.#chance() < 0.5 || options.isCalm ? 0 : this.#chance() * 0.15;
  }

  /** Lives through so much virtual time with faults, then without, and checks everything. Throws a Violation. */
  async run(durationMs: number): Promise<void> {
    this.begin();
    this.#planFault();
    await this.advance(durationMs);
    this.#heal();
    await this.#untilConverged();
    await this.#readAll();
    for (const { member, fatal } of this.#machines)
      check(!fatal.some(isDivergence), 'R6', `member ${member.id}: ${fatal.find(isDivergence)}`);
    const register = unexplainedRegister(this.history);
    check(register === undefined, 'R8', `the history of register ${register} is not linearizable`);
  }

  /** Machines and clients begin. */
  begin(): void {
    for (const machine of this.#machines) this.#start(machine);
    for (let client = 0; client < CLIENTS; client++) this.#clientTurn(client);
  }

  async advance(durationMs: number): Promise<void> {
    await this.time.advanceTo(this.time.nowMs + durationMs);
    if (this.#failure !== undefined) throw this.#failure;
  }

  // --- machines ---

  #addMachine(): Machine {
    const id = this.#nextId++;
    const member = { id, nodeId: `node-${id}`, address: `10.0.0.${id}:2377` };
    const machine: Machine = new Machine(
      member,
      this.#newDisk(() => machine),
      this.#newClock(() => machine, 0),
    );
    this.#machines.push(machine);
    return machine;
  }

  #newDisk(owner: () => Machine): SimDisk {
    return new SimDisk({
      chance: this.#chance,
      schedule: (complete) => {
        // Mostly as fast as a disk is, now and then as slow as one can be.
        const delayMs = owner().diskDelayMs * (this.#chance() < 0.02 ? 50 : 1) * (0.5 + this.#chance());
        owner().clock.wake(delayMs, complete);
      },
    });
  }

  /** The clock of a machine's present process. */
  #newClock(machine: () => Machine, generation: number): ProcessClock {
    return new ProcessClock(
      this.time,
      () => machine().generation === generation,
      0.95 + this.#chance() * 0.1,
    );
  }

  #start(machine: Machine): void {
    const generation = ++machine.generation;
    machine.clock = this.#newClock(() => machine, generation);
    machine.registers = new Registers();
    machine.isOpen = false;
    const isCurrent = () => machine.generation === generation;
    const { clock } = machine;
    const host = new RaftHost({
      log: {
        disk: machine.disk,
        randomBytes: (count) =>
          Buffer.from(Array.from({ length: count }, () => Math.floor(this.#chance() * 256))),
        onFatal: (error) => {
          if (!isCurrent()) return;
          machine.fatal.push(messageOf(error));
          this.#crash(machine, 'process', 100);
        },
        segmentBytes: { first: 8192, max: 32_768 },
        ballastBytes: 4096,
        lowWatermarkBytes: this.#options.lowWatermarkBytes ?? 0,
        copyBytesMax: this.#chance() < 0.5 ? 0 : 4096,
        defer: (callback) => clock.wake(0, callback),
      },
      clusterId: CLUSTER,
      self: machine.member,
      ...(this.#founders.some(({ id }) => id === machine.member.id)
        ? { founders: this.#founders }
        : undefined),
      openNetwork: (_self, events) => {
        machine.events = events;
        return this.#networkOf(machine, isCurrent);
      },
      clock,
      random: this.#chance,
      defer: (callback) => clock.wake(0, callback),
      snapshotInterval: () => 40,
      entriesHeldBytes: 200,
      applyBytesPerTurn: 50,
      stateHashInterval: 10,
    });
    machine.host = host;
    host.open(machine.registers).then(
      () => {
        if (isCurrent()) machine.isOpen = true;
      },
      (error) => {
        if (isCurrent()) this.#onOpenFailed(machine, error);
      },
    );
  }

  #onOpenFailed(machine: Machine, error: unknown): void {
    machine.host = undefined;
    const isDamaged = error instanceof SwarmError && /damaged/.test(error.message);
    const isFull = error instanceof SwarmError && error.code === 'resource-exhausted';
    if (isDamaged) machine.isLost = true;
    else if (isFull || /simulated/.test(messageOf(error))) this.#crash(machine, 'process', 500);
    else this.#failure ??= error;
  }

  #crash(machine: Machine, kind: CrashKind, downMs: number): void {
    machine.generation++;
    machine.host = undefined;
    machine.isOpen = false;
    machine.events = undefined;
    machine.disk = machine.disk.crash(kind);
    for (const other of this.#machines) {
      if (other === machine || other.events === undefined || kind === 'power') continue;
      const { events } = other;
      // Its connections break; the others notice in their own time.
      other.clock.wake(this.#chance() * 20, () => {
        if (other.events === events) events.onLost(machine.member.id);
      });
    }
    this.#restartLater(machine, downMs);
  }

  #restartLater(machine: Machine, delayMs: number): void {
    this.time.after(delayMs, () => {
      if (machine.host === undefined && !machine.isLost) this.#start(machine);
    });
  }

  // --- network ---

  #networkOf(machine: Machine, isCurrent: () => boolean): PeerNetwork {
    const { id } = machine.member;
    return {
      setPeers: () => {},
      close: () => {},
      isConnected: (peer) => this.#reach(id, peer)?.isOpen === true,
      send: (message) => {
        if (isCurrent()) this.#send(message);
      },
      sendSnapshot: (to, head, records) => this.#sendSnapshot(to, head, records),
    };
  }

  #reach(from: number, to: number): Machine | undefined {
    if (this.#blocked.has(`${from}>${to}`)) return undefined;
    return this.#machines.find((machine) => machine.member.id === to && machine.events !== undefined);
  }

  #send(message: RaftMessage): void {
    const isCalm = this.#isHealed || this.#options.isCalm;
    const copies = isCalm || this.#chance() > 0.03 ? 1 : 2;
    for (let copy = 0; copy < copies; copy++) {
      if (!this.#isHealed && this.#chance() < this.#lossRatio) continue;
      const delayMs = this.#chance() < 0.05 ? this.#chance() * 300 : 0.1 + this.#chance() * 3;
      this.time.after(delayMs, () => {
        const receiver = this.#reach(message.from, message.to);
        receiver?.clock.wake(0, () => receiver.events?.onMessage(message));
      });
    }
  }

  async #sendSnapshot(to: number, head: SnapshotHead, records: AsyncIterable<Uint8Array[]>): Promise<void> {
    const world = this;
    const receiver = this.#reach(head.from, to);
    if (receiver?.events === undefined) throw new SwarmError('unavailable', 'not reached');
    const broken = this.#untilBroken(head.from, receiver);
    const iterator = records[Symbol.asyncIterator]();
    async function* onTheWay(): AsyncIterable<Uint8Array[]> {
      for (;;) {
        const next = await Promise.race([iterator.next(), broken]);
        if (next.done) return;
        await new Promise<void>((resolve) => world.time.after(1 + world.#chance() * 10, resolve));
        yield next.value;
      }
    }
    await Promise.race([receiver.events.onSnapshot(head, onTheWay()), broken]);
  }

  /** Rejects when the connection between the two breaks: one of them ends, or the network does. */
  #untilBroken(from: number, receiver: Machine): Promise<never> {
    const sender = this.#machines.find(({ member }) => member.id === from);
    const generations = [sender?.generation, receiver.generation];
    const broken = new Promise<never>((_, reject) => {
      const look = () => {
        const isSame = sender?.generation === generations[0] && receiver.generation === generations[1];
        if (isSame && this.#reach(from, receiver.member.id) === receiver) this.time.after(50, look);
        else reject(new SwarmError('unavailable', 'the connection broke'));
      };
      look();
    });
    broken.catch(() => {});
    return broken;
  }

  // --- clients ---

  #clientTurn(client: number): void {
    if (this.#isHealed) return;
    const open = this.#machines.filter(({ host, isOpen }) => isOpen && host?.leadership.isLeader === true);
    const machine = open[Math.floor(this.#chance() * open.length)];
    if (machine?.host === undefined) {
      this.time.after(20, () => this.#clientTurn(client));
      return;
    }
    const isWrite = this.#chance() < 0.6;
    const register = Math.floor(this.#chance() * REGISTERS);
    this.#call(machine, client, isWrite ? { register, value: ++this.#values } : { register });
  }

  #call(machine: Machine, client: number, what: { register: number; value?: number }): void {
    const { host, registers, generation } = machine;
    if (host === undefined) return;
    const { register, value } = what;
    const operation: Operation = {
      client,
      kind: value === undefined ? 'read' : 'write',
      register,
      value: value ?? 0,
      invoked: this.#stamp(),
      returned: undefined,
    };
    this.history.push(operation);
    let isOver = false;
    const next = () => {
      if (isOver) return;
      isOver = true;
      this.time.after(1 + this.#chance() * 30, () => this.#clientTurn(client));
    };
    const isCurrent = () => !isOver && machine.generation === generation;
    const answer = value === undefined ? host.readBarrier() : host.propose(entryOf(register, value));
    answer.then(
      () => {
        if (!isCurrent()) return;
        if (value === undefined) operation.value = registers.values[register] ?? 0;
        operation.returned = this.#stamp();
        next();
      },
      (error) => {
        if (!isCurrent()) return;
        if (error instanceof NotLeaderError || value === undefined) this.#forget(operation);
        next();
      },
    );
    this.time.after(PATIENCE_MS, next);
  }

  #stamps = 0;
  #stamp(): number {
    return ++this.#stamps;
  }

  #forget(operation: Operation): void {
    const at = this.history.indexOf(operation);
    if (at >= 0) this.history.splice(at, 1);
  }

  // --- faults ---

  #planFault(): void {
    this.time.after(50 + this.#chance() * 900, () => {
      if (this.#isHealed) return;
      this.#fault();
      this.#planFault();
    });
  }

  #fault(): void {
    const machine = this.#pick(this.#machines);
    const actions: Record<string, () => void> = {
      crash: () => this.#crash(machine, 'process', this.#chance() * 2_000),
      power: () => this.#crash(machine, 'power', this.#chance() * 2_000),
      blackout: () => {
        for (const each of this.#machines) this.#crash(each, 'power', this.#chance() * 1_000);
      },
      cut: () => this.#cut(),
      mend: () => this.mend(),
      pause: () => {
        machine.clock.pausedUntilMs = this.time.nowMs + this.#chance() * 3_000;
      },
      slow: () => {
        machine.diskDelayMs = 20 * this.#chance();
      },
      fast: () => {
        machine.diskDelayMs = 0.2;
      },
      full: () => {
        machine.disk.capacityBytes = machine.disk.usedBytes + 2048;
      },
      room: () => {
        for (const each of this.#machines) each.disk.capacityBytes = Number.POSITIVE_INFINITY;
      },
      error: () => {
        machine.disk.fault = () => new Error('EIO: simulated');
        this.time.after(50, () => this.#crash(machine, 'process', 200));
      },
      rot: () => this.#rot(machine),
      transfer: () => void this.leader?.host?.transferLeadership().catch(() => {}),
      change: () => this.#changeMembers(),
      replace: () => this.#replaceLost(),
    };
    const names = Object.keys(actions);
    const name = names[Math.floor(this.#chance() * names.length)] ?? 'mend';
    this.faults.set(name, (this.faults.get(name) ?? 0) + 1);
    actions[name]?.();
  }

  /** The others do not hear it, nor does it hear them; until `mend`. */
  isolate(machine: Machine): void {
    for (const { member } of this.#machines)
      if (member !== machine.member) {
        this.#blocked.add(`${machine.member.id}>${member.id}`);
        this.#blocked.add(`${member.id}>${machine.member.id}`);
      }
  }

  mend(): void {
    this.#blocked.clear();
  }

  #cut(): void {
    const isOneWay = this.#chance() < 0.3;
    const side = new Map(this.#machines.map((machine) => [machine, this.#chance() < 0.5]));
    for (const from of this.#machines)
      for (const to of this.#machines)
        if (side.get(from) !== side.get(to) && (!isOneWay || side.get(from) === true))
          this.#blocked.add(`${from.member.id}>${to.member.id}`);
  }

  /** A bit of an old block turns over while the machine is off: once a run, and others must have the log. */
  #rot(machine: Machine): void {
    const voters = this.leader?.host?.status.configuration.voters ?? [];
    if (this.#isRotten || voters.length < 3 || this.#machines.some(({ isOpen }) => !isOpen)) return;
    this.#crash(machine, 'process', 300);
    const segments = machine.disk.names.filter((name) => name.endsWith('.seg'));
    const [oldest] = segments;
    if (oldest === undefined || segments.length < 2) return;
    const content = Buffer.from(machine.disk.content(oldest));
    this.#isRotten = true;
    const at = 600 + Math.floor(this.#chance() * Math.max(1, content.length - 700));
    content[at] = (content[at] ?? 0) ^ 16;
    machine.disk.replace(oldest, content);
  }

  #changeMembers(): void {
    const leader = this.leader;
    if (leader?.host === undefined) return;
    const { voters, learners } = leader.host.status.configuration;
    const draw = this.#chance();
    const members = leader.host.status.configuration.members;
    const memberOf = (id: number) => members.find((member) => member.id === id) as Member;
    const change = (kind: 'add-voter' | 'add-learner' | 'remove', member: Member) =>
      leader.host?.changeMembers({ steps: [{ kind, member }] }).catch(() => {});
    if (draw < 0.4 && members.length < MEMBERS_MAX) {
      const machine = this.#addMachine();
      this.#start(machine);
      void change('add-learner', machine.member);
    } else if (draw < 0.8 && learners.length > 0) void change('add-voter', memberOf(this.#pick(learners)));
    else if (voters.length > 3) void change('remove', memberOf(this.#pick(voters)));
  }

  /** A machine whose disk was damaged comes back with an empty one, as somebody else. */
  #replaceLost(): void {
    const leader = this.leader;
    const lost = this.#machines.find(({ isLost }) => isLost);
    if (leader?.host === undefined || lost === undefined) return;
    const { configuration } = leader.host.status;
    const isMember = configuration.members.some(({ id }) => id === lost.member.id);
    if (isMember) {
      void leader.host.changeMembers({ steps: [{ kind: 'remove', member: lost.member }] }).catch(() => {});
      return;
    }
    const id = this.#nextId++;
    lost.member = { id, nodeId: `node-${id}`, address: `10.0.0.${id}:2377` };
    lost.disk = this.#newDisk(() => lost);
    lost.isLost = false;
    this.#start(lost);
    void leader.host.changeMembers({ steps: [{ kind: 'add-voter', member: lost.member }] }).catch(() => {});
  }

  // --- the end ---

  #heal(): void {
    this.#isHealed = true;
    this.#blocked.clear();
    for (const machine of this.#machines) {
      machine.clock.pausedUntilMs = 0;
      machine.diskDelayMs = 0.2;
      machine.disk.capacityBytes = Number.POSITIVE_INFINITY;
      machine.disk.fault = () => undefined;
    }
  }

  get machines(): readonly Machine[] {
    return this.#machines;
  }

  /** Whoever leads the youngest term. */
  get leader(): Machine | undefined {
    return this.#machines
      .filter(({ host, isOpen }) => isOpen && host?.leadership.isLeader === true)
      .sort((a, b) => (b.host?.leadership.term ?? 0) - (a.host?.leadership.term ?? 0))[0];
  }

  async #untilConverged(): Promise<void> {
    for (const endMs = this.time.nowMs + HEAL_MS; this.time.nowMs < endMs; ) {
      await this.advance(500);
      if (this.#isConverged()) return;
    }
    check(false, 'L1', `no agreement ${HEAL_MS} ms after all faults ended`);
  }

  #isConverged(): boolean {
    const leader = this.leader;
    if (leader?.host === undefined) return false;
    const { configuration, committedIndex, appliedIndex } = leader.host.status;
    if (appliedIndex !== committedIndex) return false;
    return [...configuration.voters, ...configuration.learners].every((id) => {
      const machine = this.#machines.find(({ member }) => member.id === id);
      if (machine?.isLost === true) return true;
      if (machine?.host === undefined || machine.host.appliedIndex !== appliedIndex) return false;
      const isEqual = machine.registers.values.join() === leader.registers.values.join();
      check(
        isEqual,
        'R9',
        `member ${id} has ${machine.registers.values}, the leader ${leader.registers.values}`,
      );
      return true;
    });
  }

  /** What was acknowledged must be there: the last word of the history. Who has just been elected may lead no longer. */
  async #readAll(): Promise<void> {
    for (let attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
      const { leader } = this;
      if (leader !== undefined)
        for (let register = 0; register < REGISTERS; register++)
          this.#call(leader, CLIENTS + register, { register });
      await this.advance(3_000);
      const last = this.history.slice(-REGISTERS);
      if (
        last.every(
          ({ returned, kind, client }) => client >= CLIENTS && kind === 'read' && returned !== undefined,
        )
      )
        return;
    }
    check(false, 'L1', 'the last reads were not answered');
  }

  /** Every machine on a line, for the report of a failure. */
  describe(): string {
    return this.#machines
      .map(({ member, host, isOpen, isLost, disk }) => {
        if (host === undefined || !isOpen)
          return `${member.id}: ${isLost ? 'lost' : host ? 'opening' : 'down'}`;
        const { role, term, leaderId, committedIndex, appliedIndex, configuration, isDiskFull } = host.status;
        const parts = [configuration.voters, configuration.outgoingVoters, configuration.learners];
        return (
          `${member.id}: ${role} term ${term} leader ${leaderId} commit ${committedIndex} applied ${appliedIndex} ` +
          `members ${parts.join('|')}${isDiskFull ? ' full' : ''}${disk.isDead ? ' dead disk' : ''}`
        );
      })
      .join('\n');
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#chance() * values.length)] as T;
  }
}
