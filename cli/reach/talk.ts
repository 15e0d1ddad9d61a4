// The operator's end of a stream into a task: what is typed goes there, what the task says is shown, signals and sizes of the
// terminal follow.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, messageOf, SwarmError } from '../../core/errors.ts';
import { REACH_CHUNK_BYTES, REACH_WINDOW_BYTES } from '../../core/reach.ts';
import {
  type AttachedStreams,
  emptyReachInput,
  type ReachEnd,
  type ReachInput,
  type ReachOutput,
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
  /** What is talked to goes on when the way there is lost, and can be found again. */
  readonly comesBack?: boolean;
}

/** Who leaves by the detach keys is told so; Docker's words. */
const DETACHED = 'read escape sequence\n';
// A node that was started anew is there within seconds, a leader within less.
const AGAIN_MS = 500;
const AGAIN_LIMIT_MS = 60_000;

/** Returns how it ended; undefined when the operator has left by the detach keys. */
export async function talk(
  control: Control,
  request: ReachRequest,
  options: TalkOptions,
): Promise<ReachEnd | undefined> {
  return new Talk(control, options).run(request);
}

class Talk {
  readonly #control: Control;
  readonly #options: TalkOptions;
  #call: BidiCall<ReachInput, ReachOutput> | undefined;
  /** What is typed waits for it: the call has begun. */
  #ready = Promise.withResolvers<void>();
  /** Bytes that may be sent before some are taken. */
  #window = REACH_WINDOW_BYTES;
  #widen = () => {};
  #tty: boolean;
  #hasDetached = false;
  #hasStarted = false;
  #lostAtMs: number | undefined;
  readonly #stop: (() => void)[] = [];

  constructor(control: Control, options: TalkOptions) {
    this.#control = control;
    this.#options = options;
    this.#tty = options.tty;
  }

  async run(request: ReachRequest): Promise<ReachEnd | undefined> {
    try {
      for (;;) {
        try {
          const ended = await this.#converse(request);
          return this.#hasDetached ? undefined : ended;
        } catch (error) {
          if (this.#hasDetached) return undefined;
          if (!this.#hasStarted) throw error;
          if (!this.#options.comesBack)
            throw lost(`the way to the task is lost, and its command is ended: ${messageOf(error)}`, error);
          await this.#pause(error);
        }
      }
    } finally {
      for (const end of this.#stop) end();
    }
  }

  async #converse(request: ReachRequest): Promise<ReachEnd> {
    const call = this.#control.reach();
    this.#call = call;
    await this.#send({ request });
    for await (const output of call) {
      if (output.started) this.#start(output.streams);
      else if (output.ended !== undefined) return output.ended;
      else await this.#show(output);
    }
    throw new SwarmError('unavailable', 'the manager has ended the call');
  }

  /** Until it may be tried again. Throws when that is of no use. */
  async #pause(error: unknown): Promise<void> {
    const { io } = this.#options;
    this.#lose();
    if (this.#lostAtMs === undefined) {
      this.#lostAtMs = io.nowMs();
      this.#tell(`the way to the task is lost, the task goes on: attaching again (${messageOf(error)})`);
    } else if (!hasCode(error, 'unavailable') && !hasCode(error, 'deadline-exceeded')) throw error;
    if (io.nowMs() - this.#lostAtMs > AGAIN_LIMIT_MS)
      throw lost(`the way to the task is lost and does not come back: ${messageOf(error)}`, error);
    await delay(AGAIN_MS);
  }

  #start(streams: AttachedStreams | undefined): void {
    if (this.#hasStarted) {
      this.#lostAtMs = undefined;
      this.#tell('attached again; what the task wrote meanwhile is in its log');
      if (this.#tty) this.#say({ size: sizeOf(this.#options.io) });
    } else this.#begin(streams);
    this.#window = REACH_WINDOW_BYTES;
    this.#widen();
    this.#ready.resolve();
  }

  /** A terminal in raw mode does not begin lines by itself. */
  #tell(message: string): void {
    this.#options.io.err(this.#tty ? `\r\n${message}\r\n` : `${message}\n`);
  }

  /** What is typed from now on waits for the next call. */
  #lose(): void {
    this.#call = undefined;
    this.#ready = Promise.withResolvers();
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

  #begin(streams: AttachedStreams | undefined): void {
    const { io, sendsSignals } = this.#options;
    this.#hasStarted = true;
    const stdin = this.#options.stdin && streams?.stdin !== false;
    // A task's own terminal is one for who types there; who only looks leaves by ^C.
    this.#tty &&= streams === undefined || (streams.tty && stdin);
    if (stdin) void this.#type();
    if (this.#tty && io.keyboard !== undefined) {
      io.keyboard.setRaw(true);
      this.#stop.push(() => io.keyboard?.setRaw(false));
      this.#stop.push(io.onResize(() => this.#say({ size: sizeOf(io) })));
      this.#say({ size: sizeOf(io) });
    }
    if (sendsSignals) this.#stop.push(io.onSignal((signal) => this.#say({ signal })));
  }

  async #type(): Promise<void> {
    const { io, detachKeys } = this.#options;
    const keys = this.#tty ? new DetachKeys(detachKeys) : undefined;
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
    for (;;) {
      const { promise } = this.#ready;
      await promise;
      this.#window -= data.length;
      try {
        return await this.#send({ data });
      } catch (error) {
        if (!this.#options.comesBack) throw error;
        if (this.#ready.promise === promise) this.#lose();
      }
    }
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

  async #send(input: Partial<ReachInput>): Promise<void> {
    if (this.#call === undefined) throw new SwarmError('unavailable', 'the way to the task is lost');
    await this.#call.send({ ...emptyReachInput, ...input });
  }
}

function lost(message: string, cause: unknown): SwarmError {
  return new SwarmError('unavailable', message, { cause });
}

export function sizeOf({ columns, rows }: Io): { columns: number; rows: number } {
  return { columns, rows };
}
