// How long a manager takes for a call that reads nothing: it waits for the event loop.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

export interface PingTimes {
  readonly managerMs: number[];
  /** Of a process beside it that has nothing to do: what the machine makes everybody wait. */
  readonly idleMs: number[];
}

const PROGRAM = path.join(import.meta.dirname, 'pings-process.ts');

export class Pings implements Disposable {
  readonly #child: ChildProcess;

  /** Begins. `socket` is that of the manager. */
  constructor(socket: string) {
    this.#child = spawn(process.execPath, [PROGRAM, socket], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
  }

  async stop(): Promise<PingTimes> {
    const ended = once(this.#child, 'exit').then(([code, signal]) => {
      throw new Error(`the pings ended with ${code ?? signal}`);
    });
    this.#child.send('stop');
    const [times] = await Promise.race([once(this.#child, 'message'), ended]);
    ended.catch(() => {});
    return times as PingTimes;
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}
