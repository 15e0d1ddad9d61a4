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
  readonly #ended: Promise<never>;

  /** Begins. `socket` is that of the manager. */
  constructor(socket: string) {
    this.#child = spawn(process.execPath, [PROGRAM, socket], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.#ended = once(this.#child, 'exit').then(([code, signal]) => {
      throw new Error(`the pings ended with ${code ?? signal}`);
    });
    this.#ended.catch(() => {});
  }

  /** Those since the last call. */
  async take(): Promise<PingTimes> {
    this.#child.send('take');
    const [times] = await Promise.race([once(this.#child, 'message'), this.#ended]);
    return times as PingTimes;
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}
