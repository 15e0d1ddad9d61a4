// The operator's end of a stream into a task: what is typed goes there, what the task says is shown, signals and sizes of the
// terminal follow.

import { messageOf, SwarmError } from '../../core/errors.ts';
import { REACH_CHUNK_BYTES, REACH_WINDOW_BYTES } from '../../core/reach.ts';
import type { ReachOutput } from '../../proto/generated/reach.ts';
import {
  emptyReachInput,
  type ReachEnd,
  type ReachInput,
  type ReachRequest,
} from '../../proto/generated/reach.ts';
import type { BidiCall } from '../../rpc/client.ts';
import type { Control } from '../connection.ts';
import type { Io } from '../io.ts';
import { DetachKeys } from './detach-keys.ts';

export interface TalkOptions {
  readonly io: Io;
  /** What is typed is sent. */
  readonly stdin: boolean;
  readonly tty: boolean;
  /** Signals of this program go to the task. */
  readonly sendsSignals: boolean;
  readonly detachKeys: readonly number[];
}

/** Who leaves by the detach keys is told so; Docker's words. */
const DETACHED = 'read escape sequence\n';

/** Returns how it ended; undefined when the operator has left by the detach keys. */
export async function talk(
  control: Control,
  request: ReachRequest,
  options: TalkOptions,
): Promise<ReachEnd | undefined> {
  const call = control.reach();
  return new Talk(call, options).run(request);
}

class Talk {
  readonly #call: BidiCall<ReachInput, ReachOutput>;
  readonly #options: TalkOptions;
  /** Bytes that may be sent before some are taken. */
  #window = REACH_WINDOW_BYTES;
  #widen = () => {};
  #hasDetached = false;
  #hasStarted = false;

  constructor(call: BidiCall<ReachInput, ReachOutput>, options: TalkOptions) {
    this.#call = call;
    this.#options = options;
  }

  async run(request: ReachRequest): Promise<ReachEnd | undefined> {
    const stop: (() => void)[] = [];
    try {
      await this.#send({ request });
      for await (const output of this.#call) {
        if (output.started) stop.push(...this.#begin());
        else if (output.ended !== undefined) return this.#hasDetached ? undefined : output.ended;
        else await this.#show(output);
      }
      throw new SwarmError('unavailable', 'the manager has ended the call');
    } catch (error) {
      if (this.#hasDetached) return undefined;
      if (!this.#hasStarted) throw error;
      throw new SwarmError(
        'unavailable',
        `the way to the task is lost, and its command is ended: ${messageOf(error)}`,
        {
          cause: error,
        },
      );
    } finally {
      for (const end of stop) end();
    }
  }

  async #show({ stdout, stderr, takenBytes }: ReachOutput): Promise<void> {
    const { io } = this.#options;
    if (stdout.length > 0) await io.out(stdout);
    else if (stderr.length > 0) await io.errOut(stderr);
    else {
      this.#window += takenBytes;
      this.#widen();
    }
  }

  /** Returns what takes it back. */
  #begin(): (() => void)[] {
    const { io, stdin, tty, sendsSignals } = this.#options;
    this.#hasStarted = true;
    const stop: (() => void)[] = [];
    if (stdin) void this.#type();
    if (tty && io.keyboard !== undefined) {
      io.keyboard.setRaw(true);
      stop.push(() => io.keyboard?.setRaw(false));
      stop.push(io.onResize(() => this.#say({ size: sizeOf(io) })));
      this.#say({ size: sizeOf(io) });
    }
    if (sendsSignals) stop.push(io.onSignal((signal) => this.#say({ signal })));
    return stop;
  }

  async #type(): Promise<void> {
    const { io, tty, detachKeys } = this.#options;
    const keys = tty ? new DetachKeys(detachKeys) : undefined;
    try {
      for await (const typed of io.stdin) {
        const { data, isDetached } = keys?.filter(typed) ?? { data: typed, isDetached: false };
        for (let at = 0; at < data.length; at += REACH_CHUNK_BYTES)
          await this.#sendData(data.subarray(at, at + REACH_CHUNK_BYTES));
        if (isDetached) return await this.#detach();
      }
      await this.#send({ endOfData: true });
    } catch {
      // The call has ended; how is heard at its other end.
    }
  }

  async #sendData(data: Uint8Array): Promise<void> {
    while (this.#window < data.length)
      await new Promise<void>((resolve) => {
        this.#widen = resolve;
      });
    this.#window -= data.length;
    await this.#send({ data });
  }

  async #detach(): Promise<void> {
    this.#hasDetached = true;
    this.#options.io.err(DETACHED);
    await this.#send({ detach: true });
  }

  /** Beside everything else. */
  #say(input: Partial<ReachInput>): void {
    // The call has ended; how is heard at its other end.
    this.#send(input).catch(() => {});
  }

  #send(input: Partial<ReachInput>): Promise<void> {
    return this.#call.send({ ...emptyReachInput, ...input });
  }
}

export function sizeOf({ columns, rows }: Io): { columns: number; rows: number } {
  return { columns, rows };
}
