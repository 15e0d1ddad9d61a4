// Clients of a simulated cluster: each writes or reads one register at a time at whoever says it leads. Checks as it
// goes that no acknowledged write is lost and that reads and writes take effect between call and answer, by the log
// index at which they did (R8); the history can be given to the linearizability checker as well.

import type { Entry } from '../../proto/generated/raft.ts';
import { type CoreChecks, check } from './core-checks.ts';
import { type CoreMember, REGISTERS } from './core-member.ts';
import { beginningOf, type Operation, unexplainedRegister } from './linearizability.ts';

const CLIENTS = 5;
/** Calls after which a client stops waiting: the effect of its call remains unknown. */
const PATIENCE = 60;
/** Calls of a run that the linearizability checker is given. */
const CHECKED_MAX = 400;

interface Call {
  readonly operation: Operation;
  readonly member: CoreMember;
  readonly incarnation: number;
  /** Of a write: where its entry stands. */
  readonly index: number;
  readonly term: number;
  /** Of a read: its number, and the index it waits for. */
  readonly read: number;
  readIndex: number;
  /** No answer may be older than what was answered before the call. */
  readonly floor: number;
}

export class Clients {
  readonly history: Operation[] = [];
  doneSinceHeal = 0;
  readonly #checks: CoreChecks;
  readonly #chance: () => number;
  readonly #calls: (Call | undefined)[] = new Array<Call | undefined>(CLIENTS).fill(undefined);
  #now = 0;
  #values = 0;
  /** The youngest log index whose effect any client has seen. */
  #seenIndex = 0;

  constructor(checks: CoreChecks, chance: () => number) {
    this.#checks = checks;
    this.#chance = chance;
  }

  get isBusy(): boolean {
    return this.#calls.some((call) => call !== undefined);
  }

  /** Somebody calls `member`, if it is free and the member leads. */
  act(member: CoreMember | undefined): void {
    this.#now++;
    const client = Math.floor(this.#chance() * CLIENTS);
    const call = this.#calls[client];
    if (call !== undefined && this.#now - call.operation.invoked > PATIENCE) this.#calls[client] = undefined;
    if (member?.raft?.role !== 'leader' || this.#calls[client] !== undefined) return;
    if (this.#chance() < 0.6) this.write(member, client);
    else this.read(member, client);
  }

  write(member: CoreMember, client: number): void {
    const value = ++this.#values;
    const register = Math.floor(this.#chance() * REGISTERS);
    const payload = Uint8Array.of(register, value % 256, (value >> 8) % 256, value >> 16);
    const target = member.raft?.transferTarget;
    const at = member.raft?.propose([payload]);
    if (at === undefined || typeof at === 'string') return;
    check(target === undefined, 'T1', `member ${member.id} takes a proposal while it hands leadership over`);
    this.#calls[client] = {
      ...this.#newCall(member, client, 'write', register, value),
      index: at.firstIndex,
      term: at.term,
    };
    member.drain();
  }

  read(member: CoreMember, client: number): void {
    const read = member.raft?.readIndex();
    if (read === undefined || read === 'not-leader') return;
    const register = Math.floor(this.#chance() * REGISTERS);
    // Everything that anybody had committed by now: more than what any client has seen.
    const floor = this.#checks.committedIndex;
    this.#calls[client] = { ...this.#newCall(member, client, 'read', register, 0), read, floor };
    member.drain();
  }

  applied(member: CoreMember, entry: Entry): void {
    for (const [client, call] of this.#calls.entries()) {
      if (call === undefined || call.member !== member || call.incarnation !== member.incarnation) continue;
      if (call.operation.kind === 'read') this.#tryRead(client, call);
      else if (call.index === entry.index) {
        // Another leader's entry took the place: the write never happened.
        if (call.term === entry.term) this.#answer(client, call, entry.index);
        else this.#forget(client, call);
      }
    }
  }

  readConfirmed(member: CoreMember, read: number, index: number): void {
    for (const [client, call] of this.#calls.entries()) {
      if (call?.member !== member || call.incarnation !== member.incarnation) continue;
      if (call.operation.kind !== 'read' || call.read !== read || call.term !== member.raft?.term) continue;
      check(
        index >= call.floor,
        'R8',
        `a read may take effect at ${index}, ${call.floor} was committed before`,
      );
      call.readIndex = index;
      this.#tryRead(client, call);
    }
  }

  stopped(member: CoreMember): void {
    for (const [client, call] of this.#calls.entries())
      if (call?.member === member) this.#calls[client] = undefined;
  }

  /** The same once more, without knowing log indexes: only what clients saw and when. */
  checkHistory(): void {
    const register = unexplainedRegister(beginningOf(this.history, CHECKED_MAX));
    check(
      register === undefined,
      'R8',
      `no order of its reads and writes explains what register ${register} held`,
    );
  }

  giveUp(): void {
    this.#calls.fill(undefined);
    this.doneSinceHeal = 0;
  }

  #newCall(
    member: CoreMember,
    client: number,
    kind: Operation['kind'],
    register: number,
    value: number,
  ): Call {
    const operation = { client, kind, register, value, invoked: this.#now, returned: undefined };
    this.history.push(operation);
    return {
      operation,
      member,
      incarnation: member.incarnation,
      index: 0,
      term: member.raft?.term ?? 0,
      read: 0,
      readIndex: 0,
      floor: this.#seenIndex,
    };
  }

  #tryRead(client: number, call: Call): void {
    const { member, operation, readIndex } = call;
    if (readIndex === 0 || member.appliedIndex < readIndex) return;
    operation.value = member.registers[operation.register] ?? 0;
    this.#answer(client, call, member.appliedIndex);
  }

  #answer(client: number, { operation, floor }: Call, index: number): void {
    const what = `${operation.kind} of register ${operation.register}`;
    check(
      index >= floor,
      'R8',
      `a ${what} took effect at ${index}; ${floor} had been committed before it began`,
    );
    operation.returned = ++this.#now;
    this.#seenIndex = Math.max(this.#seenIndex, index);
    this.#calls[client] = undefined;
    this.doneSinceHeal++;
  }

  #forget(client: number, { operation }: Call): void {
    this.history.splice(this.history.indexOf(operation), 1);
    this.#calls[client] = undefined;
  }
}
