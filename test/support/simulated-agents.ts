// Agents by the thousand, without engine, in a process of their own: what managers are measured with.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { AgentsConfig, AgentsCounts, AgentsRequest } from './agents-process.ts';

const PROGRAM = path.join(import.meta.dirname, 'agents-process.ts');

export class SimulatedAgents implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#ended = once(child, 'exit').then(([code, signal]) => {
      throw new Error(`the agents ended with ${code ?? signal}`);
    });
    this.#ended.catch(() => {});
  }

  /** Joins them all, on a host of their own. */
  static async start(netns: string, config: AgentsConfig): Promise<SimulatedAgents> {
    const args = ['netns', 'exec', netns, process.execPath, PROGRAM];
    const agents = new SimulatedAgents(spawn('ip', args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
    try {
      await agents.#ask(config);
    } catch (error) {
      await agents[Symbol.asyncDispose]();
      throw error;
    }
    return agents;
  }

  /** Of the one process that all of them are. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  counts(): Promise<AgentsCounts> {
    return this.#ask({ op: 'counts' });
  }

  /** Returns at once; `counts` tells how it goes on. */
  update(request: Omit<AgentsRequest & { op: 'update' }, 'op'>): Promise<AgentsCounts> {
    return this.#ask({ op: 'update', ...request });
  }

  async #ask<T>(message: AgentsConfig | AgentsRequest): Promise<T> {
    this.#child.send(message);
    const [answer] = await Promise.race([once(this.#child, 'message'), this.#ended]);
    return answer as T;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }
}
