// An operator who talks to a command in a task, or to the task's own process: joins the line to the operator with its streams.

import { messageOf, SwarmError } from '../../core/errors.ts';
import { REACH_WINDOW_BYTES } from '../../core/reach.ts';
import {
  type AttachCommand,
  type ExecCommand,
  emptyReachEnd,
  type ReachEnd,
} from '../../proto/generated/reach.ts';
import { AsyncQueue } from '../../rpc/queue.ts';
import type { Containers, ExecSession } from '../engine/engine.ts';
import { workerLog } from '../log.ts';
import type { ReachLine } from '../session/reach-lines.ts';

/** Runs the command until it ends; when the operator leaves without a word it is killed. */
export async function runExec(
  containers: Pick<Containers, 'openExec'>,
  { containerId, exec }: { readonly containerId: string; readonly exec: ExecCommand },
  line: ReachLine,
): Promise<ReachEnd> {
  const started = await start(containers, containerId, exec);
  if ('error' in started) return started;
  if (exec.detach) {
    void discard(started);
    return emptyReachEnd;
  }
  await line.send({ started: true });
  return talk(started, line);
}

/** Until the task ends or the operator leaves, which is not the end of the task. */
export async function runAttach(
  containers: Pick<Containers, 'attach'>,
  { containerId, attach }: { readonly containerId: string; readonly attach: AttachCommand },
  line: ReachLine,
): Promise<ReachEnd> {
  const session = await containers.attach(containerId);
  try {
    if (attach.size !== undefined) await session.resize(attach.size);
    await line.send({ started: true, streams: { tty: session.tty, stdin: session.stdin } });
    // Others may type after this one.
    return await talk({ ...session, endInput: async () => {}, kill: session.leave }, line);
  } finally {
    session.leave();
  }
}

async function talk(session: ExecSession, line: ReachLine): Promise<ReachEnd> {
  const operator = new Operator(session, line);
  void operator.hear();
  const toEnd = async () => {
    for await (const { stream, data } of session.output) await operator.tell({ [stream]: data });
    if (operator.hasLeft) return emptyReachEnd;
    return { ...emptyReachEnd, exitCode: await session.exited };
  };
  return Promise.race([toEnd(), operator.detached]);
}

/** A program that cannot be run has the exit status that a shell gives. */
async function start(
  containers: Pick<Containers, 'openExec'>,
  containerId: string,
  { command, env, workdir, user, privileged, tty, stdin, size }: ExecCommand,
): Promise<ExecSession | ReachEnd> {
  try {
    const request = { command, env, workdir, user, privileged, tty, stdin, ...(size && { size }) };
    return await containers.openExec(containerId, request);
  } catch (error) {
    const exitCode = /^Exit code (126|127)\./.exec(
      error instanceof SwarmError ? (error.hint ?? '') : '',
    )?.[1];
    if (exitCode === undefined || !(error instanceof SwarmError)) throw error;
    return { exitCode: Number(exitCode), error: error.message, errorCode: error.code, hint: '' };
  }
}

async function discard({ output }: ExecSession): Promise<void> {
  for await (const _chunk of output);
}

class Operator {
  readonly #session: ExecSession;
  readonly #line: ReachLine;
  readonly #input = new AsyncQueue<Uint8Array>();
  #waitingBytes = 0;
  #hasLeft = false;
  readonly #detached = Promise.withResolvers<ReachEnd>();

  constructor(session: ExecSession, line: ReachLine) {
    this.#session = session;
    this.#line = line;
  }

  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  /** Resolves when the operator leaves the command to itself. */
  get detached(): Promise<ReachEnd> {
    return this.#detached.promise;
  }

  /** Waits for the operator to have room. Who has left hears nothing. */
  async tell(output: Parameters<ReachLine['send']>[0]): Promise<void> {
    if (this.#hasLeft) return;
    try {
      await this.#line.send(output);
    } catch (error) {
      this.#leave(messageOf(error));
    }
  }

  async hear(): Promise<void> {
    void this.#feed();
    try {
      for await (const { data, endOfData, size, signal, detach } of this.#line.inputs) {
        if (detach) this.#detach();
        else if (size !== undefined) await this.#try(this.#session.resize(size));
        else if (signal !== '') await this.#try(this.#session.signal(signal));
        else if (endOfData) this.#input.end();
        else this.#take(data);
      }
      this.#leave('the line has ended');
    } catch (error) {
      this.#leave(messageOf(error));
    }
  }

  #detach(): void {
    this.#hasLeft = true;
    this.#input.end();
    this.#detached.resolve(emptyReachEnd);
  }

  #take(data: Uint8Array): void {
    this.#waitingBytes += data.length;
    if (this.#waitingBytes > REACH_WINDOW_BYTES)
      throw new SwarmError('resource-exhausted', 'the operator has sent more than the window');
    this.#input.push(data);
  }

  /** What the command does not read stays here, at most a window of it; the rest stays with the operator. */
  async #feed(): Promise<void> {
    for await (const data of this.#input) {
      await this.#session.write(data);
      this.#waitingBytes -= data.length;
      await this.tell({ takenBytes: data.length });
    }
    await this.#try(this.#session.endInput());
  }

  #leave(reason: string): void {
    this.#input.end();
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    workerLog.debug({ reason }, 'operator has left without a word');
    this.#session.kill();
  }

  async #try(call: Promise<void>): Promise<void> {
    try {
      await call;
    } catch (error) {
      workerLog.warn({ reason: messageOf(error) }, 'command in a task did not hear its operator');
    }
  }
}
