// Keys and certificates are made in a process of their own: what makes them keeps 8 MB of memory, and is needed for moments.
// It is started with the first call, serves those that come close behind, and ends when none has come for a second.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../core/clock.ts';
import { type ErrorCode, messageOf, SwarmError, toSwarmError } from '../core/errors.ts';
import type { CertificateTool } from '../manager/ca/certificate-tool.ts';
import { systemClock } from './system-clock.ts';

/** The first argument that makes the daemon's program such a process. */
export const CERTIFICATE_COMMAND = 'certificate-process';

// Nodes that join one after the other find it running.
const IDLE_MS = 1_000;
// It takes milliseconds; who waits this long waits for something that does not come.
const CALL_LIMIT_MS = 30_000;

interface Call {
  readonly id: number;
  readonly method: keyof CertificateTool;
  readonly options: unknown;
}

/** One line of JSON each, as a call is. */
interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly code: ErrorCode; readonly message: string; readonly hint?: string };
}

interface Running {
  readonly child: ChildProcess;
  readonly calls: Map<number, PromiseWithResolvers<unknown>>;
}

/** The tool that starts the process when it is needed. A process that fails is replaced with the next call. */
export class CertificateProcess implements CertificateTool {
  readonly #program: string;
  readonly #clock: Clock;
  #running: Running | undefined;
  #cancelEnd = () => {};
  #lastId = 0;

  constructor({ program, clock = systemClock }: { readonly program: string; readonly clock?: Clock }) {
    this.#program = program;
    this.#clock = clock;
  }

  readonly createRoot: CertificateTool['createRoot'] = (options) => this.#call('createRoot', options);
  readonly createKeyAndRequest: CertificateTool['createKeyAndRequest'] = (options = {}) =>
    this.#call('createKeyAndRequest', options);
  readonly issue: CertificateTool['issue'] = (options) => this.#call('issue', options);
  readonly crossSign: CertificateTool['crossSign'] = (options) => this.#call('crossSign', options);

  /** The process, for who watches it; undefined while there is none. */
  get pid(): number | undefined {
    return this.#running?.child.pid;
  }

  /** Lets the process end, once it has answered what it was asked; a call starts another. */
  [Symbol.dispose](): void {
    this.#cancelEnd();
    this.#running?.child.stdin?.end();
    this.#running = undefined;
  }

  // The process runs the tool's method of this name, so the answer has its type.
  async #call<Result>(method: keyof CertificateTool, options: unknown): Promise<Result> {
    this.#cancelEnd();
    this.#running ??= this.#start();
    const { child, calls } = this.#running;
    const id = ++this.#lastId;
    const answer = Promise.withResolvers<unknown>();
    calls.set(id, answer);
    child.stdin?.write(`${JSON.stringify({ id, method, options } satisfies Call)}\n`);
    const cancelLimit = this.#clock.after(CALL_LIMIT_MS, () => child.kill('SIGKILL'));
    try {
      return (await answer.promise) as Result;
    } finally {
      cancelLimit();
      calls.delete(id);
      this.#endWhenIdle();
    }
  }

  #endWhenIdle(): void {
    this.#cancelEnd();
    if (this.#running?.calls.size === 0)
      this.#cancelEnd = this.#clock.after(IDLE_MS, () => this[Symbol.dispose]());
  }

  #start(): Running {
    const child = spawn(
      process.execPath,
      ['--max-semi-space-size=1', '--', this.#program, CERTIFICATE_COMMAND],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    const running: Running = { child, calls: new Map() };
    const fail = (reason: string) => {
      if (this.#running === running) this.#running = undefined;
      for (const { reject } of running.calls.values())
        reject(new SwarmError('unavailable', `the process that makes certificates ended: ${reason}`));
    };
    child.on('error', (error) => fail(messageOf(error)));
    child.on('close', (code, signal) => fail(signal === null ? `exit code ${code}` : `killed by ${signal}`));
    // It went away; 'close' says so.
    child.stdin.on('error', () => {});
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { id, result, error } = JSON.parse(line) as Answer;
      const call = running.calls.get(id);
      if (error === undefined) call?.resolve(result);
      else call?.reject(new SwarmError(error.code, error.message, error));
    });
    return running;
  }
}

/** The process's side: answers until its input ends. */
export async function runCertificateProcess(input: Readable, output: Writable): Promise<void> {
  // A terminal's ^C reaches both; the daemon decides when to end.
  process.on('SIGINT', () => {});
  const { x509Tool } = await import('../manager/ca/x509.ts');
  for await (const line of createInterface({ input }))
    output.write(`${JSON.stringify(await answerTo(x509Tool, JSON.parse(line) as Call))}\n`);
}

async function answerTo(tool: CertificateTool, { id, method, options }: Call): Promise<Answer> {
  try {
    return { id, result: await (tool[method] as (options: unknown) => Promise<unknown>)(options) };
  } catch (thrown) {
    const { code, message, hint } = toSwarmError(thrown);
    return { id, error: { code, message, ...(hint === undefined ? undefined : { hint }) } };
  }
}
