// A whole cluster of cores under one seed: network, disks, crashes, changes of members and clients are all drawn from
// it, one action at a time, so that a run is repeated exactly by its seed. After every action all properties of
// manager/raft/SPEC.md are checked; in the end the faults stop and the cluster has to make progress.

import { initialConfiguration } from '../../manager/raft/configuration.ts';
import type { ReplicationLimits } from '../../manager/raft/leader.ts';
import type { Entry, RaftMessage } from '../../proto/generated/raft.ts';
import { seededChance } from '../support/faults.ts';
import { CoreChecks } from './core-checks.ts';
import { Clients } from './core-clients.ts';
import { drawMix, type FaultMix, injectFault } from './core-faults.ts';
import { checkHealed, checkQuorumCore } from './core-liveness.ts';
import {
  aMember,
  CoreMember,
  type MemberWorld,
  REGISTERS,
  type SimSnapshot,
  snapshotArrival,
} from './core-member.ts';
import { Network, type Posted } from './core-network.ts';
import { describeMember, describeMessage } from './describe.ts';

const MESSAGES_MAX = 60;

export class CoreWorld implements MemberWorld {
  readonly seed: number;
  readonly chance: () => number;
  readonly checks = new CoreChecks();
  readonly clients: Clients;
  readonly members: CoreMember[] = [];
  readonly network = new Network();
  readonly mix: FaultMix;
  readonly limits: ReplicationLimits;
  readonly applyBytesMax: number;
  readonly appliesInTurns: boolean;
  readonly electionTicks: number;
  /** Random actions taken; what happens after the faults have ended is counted apart. */
  steps = 0;
  calmSteps = 0;
  /** Who was told to leave, or to give up its vote, last. */
  leavingId = 0;
  #isCalm = false;
  readonly #trace: ((line: string) => void) | undefined;
  readonly #told = new Map<number, string>();

  constructor(seed: number, trace?: (line: string) => void) {
    this.seed = seed;
    this.#trace = trace;
    this.chance = seededChance(seed);
    this.mix = drawMix(this.chance);
    this.limits = {
      appendBytesMax: this.pick([20, 20, 40, 100, 400]),
      window: { messagesMax: this.pick([1, 2, 4, 4, 8]), bytesMax: this.pick([50, 300, 1000]) },
    };
    this.electionTicks = this.pick([4, 6, 10, 10]);
    this.applyBytesMax = this.pick([20, 120, 120, 1000]);
    this.appliesInTurns = this.applyBytesMax < 100;
    this.clients = new Clients(this.checks, this.chance);
    const size = [1, 2, 3, 3, 3, 4, 5, 5, 7][Math.floor(this.chance() * 9)] ?? 3;
    const founders = Array.from({ length: size }, (_, position) => aMember(position + 1));
    const mark = { index: 1, term: 1, configuration: initialConfiguration(founders), stateHash: 0 };
    this.checks.founded({ index: 1, term: 1, kind: 'noop', payload: new Uint8Array(0) });
    const snapshot = { mark, registers: new Array<number>(REGISTERS).fill(0) };
    for (const { id } of founders) this.addMember(id, snapshot);
  }

  /** Takes `steps` random actions, then ends the faults and demands progress. Throws a Violation. */
  run(steps: number): void {
    const end = this.steps + steps;
    this.#isCalm = false;
    while (this.steps < end) this.#act();
    this.#isCalm = true;
    if (this.chance() < 0.5) checkQuorumCore(this);
    checkHealed(this);
    if (this.chance() < 0.25) this.clients.checkHistory();
  }

  send(message: RaftMessage, content: SimSnapshot | undefined): void {
    const posted = { message, content };
    if (this.network.isBlocked(message.from, message.to)) this.#lose(posted);
    else if (!this.#isCalm && this.chance() < (content === undefined ? this.mix.delay : 0.2))
      this.network.hold(posted);
    else this.network.post(posted);
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

  addMember(id: number, snapshot: SimSnapshot | undefined): void {
    const member = new CoreMember(id, this, snapshot);
    this.members.push(member);
    this.members.sort((a, b) => a.id - b.id);
    member.start();
  }

  memberOf(id: number): CoreMember | undefined {
    for (const member of this.members) if (member.id === id) return member;
    return undefined;
  }

  /** Somebody whose process runs: often nobody. */
  pickRunning(): CoreMember | undefined {
    const member = this.pick(this.members);
    return member.isUp && member.pausedUntil <= this.steps ? member : undefined;
  }

  pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.chance() * values.length)] as T;
  }

  /** Of those who believe that they lead, the one of the youngest term. */
  leader(): CoreMember | undefined {
    let leader: CoreMember | undefined;
    for (const member of this.members)
      if (member.raft?.role === 'leader' && member.raft.term > (leader?.raft?.term ?? 0)) leader = member;
    return leader;
  }

  /** Delivers a message of this kind, out of turn. Returns false when there is none. */
  deliverFirst(fits: (message: RaftMessage) => boolean): boolean {
    const at = this.network.find(fits);
    if (at < 0) return false;
    this.steps++;
    const posted = this.network.at(at);
    this.network.remove(at);
    this.#hand(posted);
    return true;
  }

  /** A unit of time in which nothing is slow: everybody ticks once, all is written and delivered. */
  fairRound(): void {
    for (const member of this.members) {
      this.calmSteps++;
      member.raft?.tick();
      member.drain();
    }
    for (let turn = 0; turn < 30; turn++) {
      for (const member of this.members) while (member.pendingCount > 0) member.completeWrite();
      if (this.network.length === 0) break;
      for (const posted of this.network.takeAll()) {
        this.calmSteps++;
        this.#hand(posted);
      }
    }
    if (this.#trace !== undefined) this.#traceMembers();
  }

  /** A line for whoever reads the run. */
  tell(line: () => string): void {
    this.#trace?.(`${this.steps}${this.calmSteps > 0 ? `+${this.calmSteps}` : ''} ${line()}`);
  }

  #act(): void {
    this.steps++;
    const { mix, network } = this;
    const { length } = network;
    if (length > MESSAGES_MAX || (length > 0 && this.chance() < 0.6)) this.#deliver();
    else {
      const draw = this.chance();
      if (draw < mix.disk) this.#write() || this.#call();
      else if (draw < mix.disk + mix.tick) this.#tick();
      else if (this.chance() < mix.calls) this.#call();
      else injectFault(this);
    }
    if (this.#trace !== undefined) this.#traceMembers();
  }

  #deliver(): void {
    const { network, mix } = this;
    const at = Math.floor(this.chance() * network.length);
    const posted = network.at(at);
    if ((this.memberOf(posted.message.to)?.pausedUntil ?? 0) > this.steps) {
      network.remove(at);
      network.hold(posted);
      return;
    }
    const isLost = this.chance() < mix.loss;
    if (isLost || this.chance() >= mix.duplication) network.remove(at);
    if (isLost) this.#lose(posted);
    else this.#hand(posted);
  }

  #lose({ message, content }: Posted): void {
    this.tell(() => `lost ${describeMessage(message)}`);
    if (content !== undefined) this.memberOf(message.from)?.raft?.reportSnapshot(message.to, false);
  }

  #hand({ message, content }: Posted): void {
    this.tell(() => `arrives ${describeMessage(message)}`);
    const receiver = this.memberOf(message.to);
    if (content === undefined) {
      receiver?.receive(message, undefined);
      return;
    }
    const sender = this.memberOf(message.from);
    receiver?.receive(snapshotArrival(message), content);
    sender?.raft?.reportSnapshot(message.to, receiver?.isUp === true);
    sender?.drain();
  }

  /** Somebody with something to write, looked for from anywhere. */
  #write(): boolean {
    const { members } = this;
    let at = Math.floor(this.chance() * members.length);
    for (let tried = 0; tried < members.length; tried++, at++) {
      const member = members[at % members.length] as CoreMember;
      if (member.pendingCount === 0 || member.stalledUntil > this.steps) continue;
      member.completeWrite();
      return true;
    }
    return false;
  }

  /** Somebody who believes to lead, old leaders as well; looked for from anywhere. */
  #pickLeader(): CoreMember | undefined {
    const { members } = this;
    let at = Math.floor(this.chance() * members.length);
    for (let tried = 0; tried < members.length; tried++, at++) {
      const member = members[at % members.length] as CoreMember;
      if (member.raft?.role === 'leader' && member.pausedUntil <= this.steps) return member;
    }
    return undefined;
  }

  /** A client calls somebody who leads; where nobody does, time passes. */
  #call(): void {
    const leader = this.#pickLeader();
    if (leader === undefined) this.#tick();
    else this.clients.act(leader);
  }

  #tick(): void {
    const member = this.pickRunning();
    if (member === undefined || member.slowUntil > this.steps) return;
    member.raft?.tick();
    member.drain();
  }

  #traceMembers(): void {
    for (const { id, raft, pendingCount } of this.members) {
      const line = raft === undefined ? `${id} is down` : `${describeMember(raft)} | writing ${pendingCount}`;
      if (this.#told.get(id) !== line) this.tell(() => `  ${line}`);
      this.#told.set(id, line);
    }
  }
}
