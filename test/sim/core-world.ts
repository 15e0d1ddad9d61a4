// A whole cluster of cores under one seed: network, disks, crashes, changes of members and clients are all drawn from
// it, one action at a time, so that a run is repeated exactly by its seed. After every action all properties of
// manager/raft/SPEC.md are checked; in the end the faults stop and the cluster has to make progress.

import { initialConfiguration, isJoint, participants } from '../../manager/raft/configuration.ts';
import type { Raft } from '../../manager/raft/raft.ts';
import type {
  ConfigurationStep,
  ConfigurationStepKind,
  Entry,
  Member,
  RaftMessage,
} from '../../proto/generated/raft.ts';
import { seededChance } from '../support/faults.ts';
import { CoreChecks, check } from './core-checks.ts';
import { Clients } from './core-clients.ts';
import { CoreMember, type MemberWorld, REGISTERS, type SimSnapshot, snapshotArrival } from './core-member.ts';

const IDS_MAX = 16;
const MESSAGES_MAX = 60;
/** Rounds of fair delivery in which a healed cluster has to commit: some election timeouts. */
const HEAL_ROUNDS_MAX = 400;

/** How often things go wrong in one run: each seed draws its own mix. */
interface FaultMix {
  readonly loss: number;
  readonly duplication: number;
  readonly crash: number;
  readonly restart: number;
  readonly partition: number;
  readonly heal: number;
  readonly jump: number;
  readonly members: number;
  readonly transfer: number;
  readonly snapshot: number;
  readonly unreachable: number;
  /** Weight of one disk write against one delivery. */
  readonly disk: number;
  readonly tick: number;
}

export class CoreWorld implements MemberWorld {
  readonly seed: number;
  readonly chance: () => number;
  readonly checks = new CoreChecks();
  readonly clients: Clients;
  readonly members: CoreMember[] = [];
  steps = 0;
  #mix: FaultMix;
  #messages: RaftMessage[] = [];
  #contents: (SimSnapshot | undefined)[] = [];
  #isBlocked = new Uint8Array((IDS_MAX + 1) * (IDS_MAX + 1));

  constructor(seed: number) {
    this.seed = seed;
    this.chance = seededChance(seed);
    this.#mix = drawMix(this.chance);
    this.clients = new Clients(this.checks, this.chance);
    const size = [1, 2, 3, 3, 3, 4, 5, 5, 7][Math.floor(this.chance() * 9)] ?? 3;
    const founders = Array.from({ length: size }, (_, position) => aMember(position + 1));
    const mark = { index: 1, term: 1, configuration: initialConfiguration(founders) };
    this.checks.committed[1] = { index: 1, term: 1, kind: 'noop', payload: new Uint8Array(0) };
    const snapshot = { mark, registers: new Array<number>(REGISTERS).fill(0) };
    for (const { id } of founders) this.#addMember(id, snapshot);
  }

  /** Takes `steps` random actions, then heals the cluster and demands progress. Throws a Violation. */
  run(steps: number): void {
    const end = this.steps + steps;
    while (this.steps < end) this.#act();
    this.heal();
  }

  send(message: RaftMessage, content: SimSnapshot | undefined): void {
    if (this.#isBlocked[message.from * (IDS_MAX + 1) + message.to] === 1) {
      if (content !== undefined) this.#memberOf(message.from)?.raft?.reportSnapshot(message.to, false);
      return;
    }
    this.#messages.push(message);
    this.#contents.push(content);
  }

  applied(member: CoreMember, entry: Entry): void {
    this.clients.applied(member, entry);
  }

  readConfirmed(member: CoreMember, read: number, index: number): void {
    this.clients.readConfirmed(member, read, index);
  }

  stopped(member: CoreMember): void {
    this.clients.stopped(member);
  }

  /** Ends all faults; then a write must be committed and everybody must have everything, within a bound. */
  heal(): void {
    this.#isBlocked.fill(0);
    for (const member of this.members) if (!member.isUp) member.start();
    this.clients.giveUp();
    for (let round = 0; round < HEAL_ROUNDS_MAX; round++) {
      this.#fairRound();
      const leader = this.#currentLeader();
      if (leader?.raft === undefined) continue;
      if (!this.clients.isBusy && this.clients.doneSinceHeal === 0) this.clients.write(leader, 0);
      if (this.clients.doneSinceHeal > 0 && this.#isSettled(leader.raft)) {
        for (const member of this.members)
          this.checks.stateAt(member.id, member.appliedIndex, member.registers);
        return;
      }
    }
    check(false, 'L1', `no progress within ${HEAL_ROUNDS_MAX} rounds after all faults ended`);
  }

  #act(): void {
    this.steps++;
    const mix = this.#mix;
    const { length } = this.#messages;
    if (length > MESSAGES_MAX || (length > 0 && this.chance() < 0.6)) {
      this.#deliver();
      return;
    }
    const draw = this.chance();
    if (draw < mix.disk) this.#pickUp()?.completeWrite();
    else if (draw < mix.disk + mix.tick) this.#tick();
    else if (this.chance() < 0.7) this.clients.act(this.#pickUp());
    else this.#fault();
  }

  #fault(): void {
    const mix = this.#mix;
    let draw = this.chance();
    const is = (weight: number) => {
      draw -= weight;
      return draw < 0;
    };
    if (is(mix.crash)) this.#crash();
    else if (is(mix.restart)) this.members.find((member) => !member.isUp && this.chance() < 0.5)?.start();
    else if (is(mix.partition)) this.#partition();
    else if (is(mix.heal)) this.#isBlocked.fill(0);
    else if (is(mix.jump)) this.#jump();
    else if (is(mix.members)) this.#changeMembers();
    else if (is(mix.transfer)) this.#transfer();
    else if (is(mix.snapshot)) this.#pickUp()?.snapshotStep(Math.floor(this.chance() * 6));
    else if (is(mix.unreachable)) this.#loseConnection();
  }

  #deliver(): void {
    const at = Math.floor(this.chance() * this.#messages.length);
    const message = this.#messages[at] as RaftMessage;
    const content = this.#contents[at];
    const isLost = this.chance() < this.#mix.loss;
    if (isLost || this.chance() >= this.#mix.duplication) this.#forget(at);
    if (isLost) {
      if (content !== undefined) this.#memberOf(message.from)?.raft?.reportSnapshot(message.to, false);
      return;
    }
    this.#hand(message, content);
  }

  #hand(message: RaftMessage, content: SimSnapshot | undefined): void {
    const receiver = this.#memberOf(message.to);
    const sender = this.#memberOf(message.from);
    if (content === undefined) receiver?.receive(message, undefined);
    else {
      receiver?.receive(snapshotArrival(message), content);
      if (sender?.raft !== undefined) {
        sender.raft.reportSnapshot(message.to, receiver?.isUp === true);
        sender.drain();
      }
    }
  }

  #forget(at: number): void {
    const lastMessage = this.#messages.pop() as RaftMessage;
    const lastContent = this.#contents.pop();
    if (at === this.#messages.length) return;
    this.#messages[at] = lastMessage;
    this.#contents[at] = lastContent;
  }

  #tick(): void {
    const member = this.#pickUp();
    member?.raft?.tick();
    member?.drain();
  }

  /** A stopped clock goes on, or time leaps: many ticks at once. */
  #jump(): void {
    const member = this.#pickUp();
    for (let ticks = 1 + this.chance() * 30; ticks > 0; ticks--) member?.raft?.tick();
    member?.drain();
  }

  #crash(): void {
    const member = this.#pickUp();
    if (member === undefined) return;
    member.crash(Math.floor(this.chance() * (member.pendingCount + 1)));
    if (this.chance() < 0.5) member.start();
  }

  #partition(): void {
    const side = new Map(this.members.map(({ id }) => [id, this.chance() < 0.5]));
    const isOneWay = this.chance() < 0.3;
    for (const from of this.members)
      for (const to of this.members)
        if (side.get(from.id) !== side.get(to.id) && (!isOneWay || side.get(from.id) === true))
          this.#isBlocked[from.id * (IDS_MAX + 1) + to.id] = 1;
  }

  /** The transport closes: a follower knows at once that its leader is gone, a leader that a peer is. */
  #loseConnection(): void {
    const member = this.#pickUp();
    if (member?.raft === undefined) return;
    if (member.raft.role === 'leader') member.raft.reportUnreachable(this.#pick(this.members).id);
    else {
      member.raft.forgetLeader();
      if (this.chance() < 0.5) member.raft.campaign();
    }
    member.drain();
  }

  #transfer(): void {
    const leader = this.members.find(({ raft }) => raft?.role === 'leader');
    const voters = leader?.raft?.configuration.voters.filter((id) => id !== leader.id) ?? [];
    if (leader?.raft === undefined || voters.length === 0) return;
    leader.raft.transferLeadership(this.#pick(voters));
    leader.drain();
  }

  #changeMembers(): void {
    const leader = this.members.find(({ raft }) => raft?.role === 'leader');
    if (leader?.raft === undefined || isJoint(leader.raft.configuration)) return;
    const count = this.chance() < 0.7 ? 1 : 2;
    const steps = Array.from({ length: count }, () => this.#drawStep(leader.raft as Raft));
    const ids = new Set(steps.map((step) => step?.member.id));
    if (steps.includes(undefined) || ids.size < count) return;
    for (const step of steps) {
      const id = step?.member.id ?? 0;
      if (this.#memberOf(id) === undefined) this.#addMember(id, undefined);
    }
    const { voters } = leader.raft.configuration;
    const leaving = steps.filter(
      (step) => step?.kind !== 'add-voter' && voters.includes(step?.member.id ?? 0),
    );
    if (leaving.length >= voters.length) return;
    leader.raft.proposeChange({ steps: steps as ConfigurationStep[] });
    leader.drain();
  }

  #drawStep({ configuration }: Raft): ConfigurationStep | undefined {
    const { voters, learners } = configuration;
    const fresh = this.members.length + 1 + Math.floor(this.chance() * 2);
    const draw = this.chance();
    const canGrow = fresh <= IDS_MAX && participants(configuration).length < 7;
    const step = (kind: ConfigurationStepKind, id: number) => ({ kind, member: aMember(id) });
    if (draw < 0.3 && canGrow) return step('add-learner', this.members.length + 1);
    if (draw < 0.45 && canGrow) return step('add-voter', this.members.length + 1);
    if (draw < 0.65 && learners.length > 0) return step('add-voter', this.#pick(learners));
    if (draw < 0.75 && voters.length > 2) return step('add-learner', this.#pick(voters));
    if (participants(configuration).length > 2)
      return step('remove', this.#pick(participants(configuration)));
    return undefined;
  }

  #fairRound(): void {
    for (const member of this.members) {
      this.steps++;
      member.raft?.tick();
      member.drain();
    }
    for (let turn = 0; turn < 30; turn++) {
      for (const member of this.members) while (member.pendingCount > 0) member.completeWrite();
      const messages = this.#messages;
      const contents = this.#contents;
      if (messages.length === 0) break;
      this.#messages = [];
      this.#contents = [];
      for (const [at, message] of messages.entries()) {
        this.steps++;
        this.#hand(message, contents[at]);
      }
    }
  }

  #currentLeader(): CoreMember | undefined {
    return this.members
      .filter(({ raft }) => raft?.role === 'leader')
      .sort((a, b) => (b.raft?.term ?? 0) - (a.raft?.term ?? 0))[0];
  }

  /** Everybody who takes part has everything, and no change of members is half done. */
  #isSettled({ configuration, log }: Raft): boolean {
    return (
      !isJoint(configuration) &&
      participants(configuration).every((id) => this.#memberOf(id)?.appliedIndex === log.lastIndex)
    );
  }

  #addMember(id: number, snapshot: SimSnapshot | undefined): void {
    const member = new CoreMember(id, this, snapshot);
    this.members.push(member);
    this.members.sort((a, b) => a.id - b.id);
    member.start();
  }

  #memberOf(id: number): CoreMember | undefined {
    return this.members.find((member) => member.id === id);
  }

  #pickUp(): CoreMember | undefined {
    const member = this.#pick(this.members);
    return member.isUp ? member : undefined;
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.chance() * values.length)] as T;
  }
}

function drawMix(chance: () => number): FaultMix {
  const often = (most: number) => (chance() < 0.4 ? 0 : chance() * most);
  return {
    loss: often(0.3),
    duplication: often(0.1),
    crash: often(0.25),
    restart: 0.1 + chance() * 0.2,
    partition: often(0.15),
    heal: 0.05 + chance() * 0.15,
    jump: often(0.1),
    members: often(0.2),
    transfer: often(0.15),
    snapshot: 0.05 + often(0.3),
    unreachable: often(0.1),
    disk: 0.25 + chance() * 0.35,
    tick: 0.05 + chance() * 0.15,
  };
}

function aMember(id: number): Member {
  return { id, nodeId: `node-${id}`, address: `10.0.0.${id}:2377` };
}
