// Clients of real managers: each writes or reads registers, one call at a time, and keeps the history for the
// linearizability checker. A call without an answer may or may not have happened; one that was refused has not.

import { setTimeout as delay } from 'node:timers/promises';
import type { Operation } from '../sim/linearizability.ts';
import { type RaftProcess, RequestError } from './raft-cluster.ts';

const PAUSE_MS = 2;

export class RegisterClients {
  readonly history: Operation[] = [];
  /** When each write was acknowledged, in milliseconds of performance.now. */
  readonly acknowledgedMs: number[] = [];
  readonly #processes: readonly RaftProcess[];
  readonly #registers: number;
  #values = 0;
  #events = 0;
  #isStopped = false;
  readonly #running: Promise<unknown>;

  constructor(processes: readonly RaftProcess[], { clients = 6, registers = 3 } = {}) {
    this.#processes = processes;
    this.#registers = registers;
    this.#running = Promise.all(Array.from({ length: clients }, (_, client) => this.#run(client)));
  }

  /** Ends the clients; a call that hangs is left unanswered. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.race([this.#running, delay(8_000)]);
  }

  get writes(): number {
    return this.history.filter(({ kind, returned }) => kind === 'write' && returned !== undefined).length;
  }

  async #run(client: number): Promise<void> {
    for (let turn = 0; !this.#isStopped; turn++) {
      const leaders = this.#processes.filter(({ isUp, isLeader }) => isUp && isLeader);
      // Old leaders that do not know it yet are asked as well.
      const process = leaders[(client + turn) % Math.max(1, leaders.length)];
      if (process === undefined) await delay(PAUSE_MS);
      else await this.#call(process, client, turn);
    }
  }

  async #call(process: RaftProcess, client: number, turn: number): Promise<void> {
    const kind = (client + turn) % 3 === 0 ? 'read' : 'write';
    const register = turn % this.#registers;
    const value = kind === 'write' ? ++this.#values : 0;
    const operation: Operation = {
      client,
      kind,
      register,
      value,
      invoked: ++this.#events,
      returned: undefined,
    };
    this.history.push(operation);
    try {
      if (kind === 'write') {
        await process.request({ op: 'write', register, value });
        this.acknowledgedMs.push(performance.now());
      } else {
        const answer = await process.request<{ value: number }>({ op: 'read', register });
        operation.value = answer.value;
      }
      operation.returned = ++this.#events;
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (kind === 'read' || error.isCertain) this.history.splice(this.history.indexOf(operation), 1);
      await delay(PAUSE_MS);
    }
  }
}
