// Runs the scripts of test/cases/raft: a story of commands to a few members, told step by step. What a command changes
// is printed beneath it, indented, and is what the script expects.
//
//   members 3 [append-bytes=20] [window=2]     founders 1 … 3
//   campaign 1 · tick 1 [20] · forget-leader 2 · unreachable 1 2
//   propose 1 a b · read 1 · transfer 1 2 · change 1 add-learner 4, remove 2 · snapshot 1 [keep]
//   deliver [1->2] [append] [first] · drop … · hold … · release · pending     first: at most so many
//   cut 1->2 · cut 1 · mend · settle           settle: all is written and delivered until nothing happens
//   stall 2 · write 2 [count] · flow 2         stall: nothing that 2 writes becomes durable by itself
//   crash 2 [survivors] · restart 2
//   log 2 · progress 1 · status

import { SwarmError } from '../../core/errors.ts';
import { initialConfiguration, participants } from '../../manager/raft/configuration.ts';
import type { ConfigurationStep, ConfigurationStepKind, RaftMessage } from '../../proto/generated/raft.ts';
import { CoreChecks } from './core-checks.ts';
import { aMember, CoreMember, type MemberWorld, type SimSnapshot, snapshotArrival } from './core-member.ts';
import type { Posted } from './core-network.ts';
import { describeEntry, describeMember, describeMessage } from './describe.ts';

const SETTLE_TURNS_MAX = 200;

/** The script with what it prints now. Comments and empty lines stay; indented lines are the old output. */
export function runScript(text: string): string {
  const world = new ScriptWorld();
  const lines: string[] = [];
  for (const line of text.trimEnd().split('\n')) {
    if (line.startsWith('  ')) continue;
    lines.push(line);
    if (line !== '' && !line.startsWith('#')) lines.push(...world.run(line).map((said) => `  ${said}`));
  }
  return `${lines.join('\n')}\n`;
}

class ScriptWorld implements MemberWorld {
  readonly chance = () => 0;
  readonly checks = new CoreChecks();
  limits = { appendBytesMax: 1000, window: { messagesMax: 4, bytesMax: 10_000 } };
  readonly applyBytesMax = 1000;
  readonly appliesInTurns = false;
  readonly electionTicks = 10;
  readonly #members = new Map<number, CoreMember>();
  readonly #stalled = new Set<number>();
  readonly #told = new Map<number, string>();
  #messages: Posted[] = [];
  #held: Posted[] = [];
  #cuts: string[] = [];
  #said: string[] = [];

  run(line: string): string[] {
    this.#said = [];
    const [command = '', ...words] = line.split(' ');
    try {
      this.#carryOut(command, words);
    } catch (error) {
      if (!(error instanceof SwarmError)) throw error;
      this.#said.push(`refused: ${error.message}`);
    }
    this.#flow();
    if (command !== 'status') this.#tellChanges();
    return this.#said;
  }

  send(message: RaftMessage, content: SimSnapshot | undefined): void {
    this.#messages.push({ message, content });
  }

  applied(): void {}

  stopped(): void {}

  readConfirmed({ id }: CoreMember, read: number, index: number): void {
    this.#said.push(`${id} may answer read ${read} at ${index}`);
  }

  #carryOut(command: string, words: readonly string[]): void {
    if (this.#aboutMessages(command, words) || this.#aboutMachines(command, words)) return;
    const member = this.#memberOf(words[0]);
    const { raft } = member;
    if (raft === undefined) throw new Error(`member ${member.id} is down`);
    const other = Number(words[1] ?? 1);
    if (command === 'campaign') raft.campaign();
    else if (command === 'tick') for (let ticks = 0; ticks < other; ticks++) this.#tick(member);
    else if (command === 'forget-leader') raft.forgetLeader();
    else if (command === 'unreachable') raft.reportUnreachable(other);
    else if (command === 'propose') this.#propose(member, words.slice(1));
    else if (command === 'read') this.#said.push(`read ${raft.readIndex()}`);
    else if (command === 'transfer') this.#said.push(raft.transferLeadership(other));
    else if (command === 'change') this.#change(member, words.slice(1).join(' '));
    else if (command === 'snapshot')
      for (let half = 0; half < 2; half++) member.snapshotStep(Number(words[1] ?? 0));
    else if (command === 'log') this.#tellLog(member);
    else if (command === 'progress') this.#tellProgress(member);
    else throw new Error(`there is no command '${command}'`);
    member.drain();
  }

  #aboutMessages(command: string, words: readonly string[]): boolean {
    if (command === 'deliver') for (const posted of this.#take(words)) this.#hand(posted);
    else if (command === 'drop') for (const posted of this.#take(words)) this.#lose(posted);
    else if (command === 'hold') this.#held.push(...this.#take(words));
    else if (command === 'release') this.#messages.push(...this.#held.splice(0));
    else if (command === 'pending')
      this.#said.push(...this.#messages.map(({ message }) => describeMessage(message)));
    else if (command === 'cut') this.#cuts.push(words[0] ?? '');
    else if (command === 'mend') this.#cuts = [];
    else if (command === 'settle') this.#settle();
    else return false;
    return true;
  }

  #aboutMachines(command: string, words: readonly string[]): boolean {
    if (command === 'members') this.#found(Number(words[0]), words.slice(1));
    else if (command === 'status')
      for (const member of this.#members.values()) this.#said.push(lineOf(member));
    else if (command === 'stall') this.#stalled.add(Number(words[0]));
    else if (command === 'flow') this.#stalled.delete(Number(words[0]));
    else if (command === 'write')
      for (let count = Number(words[1] ?? 1); count > 0; count--) this.#memberOf(words[0]).completeWrite();
    else if (command === 'crash') this.#memberOf(words[0]).crash(Number(words[1] ?? 0));
    else if (command === 'restart') this.#memberOf(words[0]).start();
    else return false;
    return true;
  }

  #found(count: number, options: readonly string[]): void {
    for (const option of options) {
      const [name, value] = option.split('=');
      if (name === 'append-bytes') this.limits = { ...this.limits, appendBytesMax: Number(value) };
      else this.limits = { ...this.limits, window: { messagesMax: Number(value), bytesMax: 10_000 } };
    }
    const founders = Array.from({ length: count }, (_, position) => aMember(position + 1));
    const mark = { index: 1, term: 1, configuration: initialConfiguration(founders), stateHash: 0 };
    this.checks.founded({ index: 1, term: 1, kind: 'noop', payload: new Uint8Array(0) });
    for (const { id } of founders) this.#add(id, { mark, registers: [0] });
  }

  #add(id: number, snapshot: SimSnapshot | undefined): void {
    const member = new CoreMember(id, this, snapshot);
    this.#members.set(id, member);
    member.start();
  }

  #tick(member: CoreMember): void {
    member.raft?.tick();
    member.drain();
    this.#flow();
  }

  #propose(member: CoreMember, words: readonly string[]): void {
    const at = member.raft?.propose(words.map((word) => new TextEncoder().encode(word)));
    this.#said.push(typeof at === 'object' ? `from ${at.firstIndex} in term ${at.term}` : `refused: ${at}`);
  }

  #change(member: CoreMember, text: string): void {
    const steps = text.split(', ').map((step): ConfigurationStep => {
      const [kind, id] = step.split(' ');
      return { kind: kind as ConfigurationStepKind, member: aMember(Number(id)) };
    });
    const at = member.raft?.proposeChange({ steps });
    this.#said.push(typeof at === 'object' ? `at ${at.index} in term ${at.term}` : `refused: ${at}`);
    for (const { member: joining } of steps)
      if (!this.#members.has(joining.id)) this.#add(joining.id, undefined);
  }

  /** Messages that fit a route and a type, in order; those newly sent meanwhile are not among them. */
  #take(words: readonly string[]): Posted[] {
    const filters = words.filter((word) => !/^\d+$/.test(word));
    const first = words.find((word) => !filters.includes(word));
    const fits = ({ message }: Posted) =>
      filters.every((filter) => filter === message.type || filter === `${message.from}->${message.to}`);
    const taken = this.#messages.filter(fits).slice(0, Number(first ?? Number.POSITIVE_INFINITY));
    this.#messages = this.#messages.filter((posted) => !taken.includes(posted));
    return taken;
  }

  #hand(posted: Posted): void {
    const { message, content } = posted;
    const { from, to } = message;
    if (this.#cuts.some((cut) => cut === `${from}->${to}` || cut === `${from}` || cut === `${to}`)) {
      this.#lose(posted);
      return;
    }
    this.#said.push(describeMessage(message));
    const receiver = this.#members.get(to);
    receiver?.receive(content === undefined ? message : snapshotArrival(message), content);
    this.#flow();
    if (content === undefined) return;
    const sender = this.#members.get(from);
    sender?.raft?.reportSnapshot(to, receiver?.isUp === true);
    sender?.drain();
  }

  #lose({ message, content }: Posted): void {
    this.#said.push(`lost: ${describeMessage(message)}`);
    if (content !== undefined) this.#members.get(message.from)?.raft?.reportSnapshot(message.to, false);
  }

  /** Says nothing of the messages: only where everybody ends up. */
  #settle(): void {
    const said = this.#said;
    this.#announce();
    for (let turn = 0; this.#messages.length > 0 && turn < SETTLE_TURNS_MAX; turn++) {
      this.#said = [];
      for (const posted of this.#take([])) this.#hand(posted);
      said.push(...this.#said.filter((line) => line.includes('may answer')));
      if (this.#messages.length === 0) this.#announce();
    }
    this.#said = said;
    if (this.#messages.length > 0) throw new Error('the members do not come to rest');
  }

  /** A host does this a moment after each commit. */
  #announce(): void {
    for (const member of this.#members.values()) {
      member.raft?.announceCommit();
      member.drain();
    }
  }

  #flow(): void {
    for (const member of this.#members.values())
      if (!this.#stalled.has(member.id)) while (member.pendingCount > 0) member.completeWrite();
  }

  #tellChanges(): void {
    for (const member of this.#members.values()) {
      const line = lineOf(member);
      if (this.#told.get(member.id) !== line) this.#said.push(line);
      this.#told.set(member.id, line);
    }
  }

  #tellLog({ raft }: CoreMember): void {
    const entries = raft?.log.slice(raft.log.firstIndex, raft.log.lastIndex, Number.POSITIVE_INFINITY) ?? [];
    this.#said.push(entries.map(describeEntry).join(' '));
  }

  #tellProgress({ raft }: CoreMember): void {
    for (const peer of raft === undefined ? [] : participants(raft.configuration)) {
      const progress = raft?.progressOf(peer);
      if (progress === undefined) continue;
      const { state, match, next, inFlight, isPaused } = progress;
      const paused = isPaused ? ' paused' : '';
      this.#said.push(`of ${peer}: ${state} match ${match} next ${next} in flight ${inFlight}${paused}`);
    }
  }

  #memberOf(word: string | undefined): CoreMember {
    const member = this.#members.get(Number(word));
    if (member === undefined) throw new Error(`there is no member '${word}'`);
    return member;
  }
}

function lineOf({ id, raft, pendingCount }: CoreMember): string {
  if (raft === undefined) return `${id} is down`;
  return describeMember(raft) + (pendingCount > 0 ? ` | writing ${pendingCount}` : '');
}
