// Calls of etcd that end: each is tried, at one member after another, until it is answered or its time is up. Every call
// made here may therefore reach etcd twice, and is written so that the second time does no harm.

import { readFileSync } from 'node:fs';
import { Etcd3, EtcdInvalidAuthTokenError, type IOptions, isRecoverableError } from 'etcd3';
import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { logLog } from '../log.ts';
import type { EtcdSettings } from './settings.ts';

/** What was asked for lies before the history that etcd still has. */
export class CompactedError extends SwarmError {
  constructor(cause?: unknown) {
    super('out-of-sequence', 'etcd has discarded the history that was asked for', { cause });
  }
}

export interface CallLimits {
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
}

type FaultPolicy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>;

/** After this long a call is answered, one way or the other. */
export const CALL_LIMIT_MS = 10_000;
// One member gets this long before another is asked.
const ATTEMPT_LIMIT_MS = 3_000;
const PAUSE_MIN_MS = 20;
const PAUSE_MAX_MS = 500;
const GRPC_OPTIONS = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.min_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // A member that vanished without a word: etcd allows a ping every 5 seconds.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
};

export class EtcdClient {
  readonly #members: readonly Etcd3[];
  readonly #hosts: readonly string[];
  readonly #clock: Clock;
  readonly #callLimitMs: number;
  readonly #closed = new AbortController();
  #current = 0;

  constructor(settings: EtcdSettings, clock: Clock, callLimitMs = CALL_LIMIT_MS) {
    this.#clock = clock;
    this.#callLimitMs = callLimitMs;
    this.#hosts = settings.hosts;
    const options = clientOptions(settings);
    this.#members = settings.hosts.map((host) => new Etcd3({ ...options, hosts: host }));
  }

  /** The member that is asked at the moment, for streams. */
  get member(): Etcd3 {
    return this.#members[this.#current] as Etcd3;
  }

  /** The member failed: the next call goes to another, unless somebody has changed over already. */
  avoid(member: Etcd3): void {
    if (member === this.member) this.#current = (this.#current + 1) % this.#members.length;
  }

  /** `run` may be called several times. Rejects with a SwarmError; `unavailable` when nobody answered in time. */
  async call<T>(
    what: string,
    run: (member: Etcd3, options: { deadline: number }) => Promise<T>,
    { limitMs = this.#callLimitMs, signal }: CallLimits = {},
  ): Promise<T> {
    const stops = signal === undefined ? [this.#closed.signal] : [signal, this.#closed.signal];
    const giveUpMs = performance.now() + limitMs;
    for (let pauseMs = PAUSE_MIN_MS; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS)) {
      for (const stop of stops) stop.throwIfAborted();
      const member = this.member;
      const leftMs = giveUpMs - performance.now();
      const attemptMs = Math.max(1, Math.min(ATTEMPT_LIMIT_MS, leftMs));
      try {
        return await unlessAborted(run(member, { deadline: this.#clock.nowMs() + attemptMs }), stops);
      } catch (error) {
        for (const stop of stops) stop.throwIfAborted();
        if (!isTransient(error)) throw this.#translate(what, error);
        logLog.debug({ what, error: messageOf(error) }, 'etcd did not answer, asking again');
        this.avoid(member);
        if (giveUpMs - performance.now() <= pauseMs) throw this.#unreachable(what, error);
      }
      await sleep(this.#clock, pauseMs, AbortSignal.any(stops));
    }
  }

  close(): void {
    this.#closed.abort(new SwarmError('unavailable', 'the manager is stopping'));
    for (const member of this.#members) member.close();
  }

  #unreachable(what: string, cause: unknown): SwarmError {
    const hosts = this.#hosts.join(', ');
    return new SwarmError('unavailable', `etcd does not answer (${what}): ${messageOf(cause)}`, {
      hint: `Is etcd running, and can this node reach ${hosts}?`,
      cause,
    });
  }

  #translate(what: string, error: unknown): SwarmError {
    if (error instanceof SwarmError) return error;
    const text = messageOf(error);
    if (text.includes('has been compacted')) return new CompactedError(error);
    if (text.includes('database space exceeded'))
      return new SwarmError('resource-exhausted', 'etcd has no space left: changes cannot be stored', {
        hint: 'Compact and defragment etcd or raise its quota, then disarm its alarm: it goes on by itself.',
        cause: error,
      });
    const isRefusal = /permission denied|authentication failed|user name is empty|auth.*not enabled/i.test(
      text,
    );
    return new SwarmError(isRefusal ? 'permission-denied' : 'internal', `etcd refused to ${what}: ${text}`, {
      cause: error,
    });
  }
}

function clientOptions({
  caFile,
  certFile,
  keyFile,
  user,
  passwordFile,
}: EtcdSettings): Omit<IOptions, 'hosts'> {
  const read = (file: string) => (file === '' ? undefined : readPem(file));
  const credentials = { rootCertificate: read(caFile), privateKey: read(keyFile), certChain: read(certFile) };
  const hasFiles = Object.values(credentials).some((content) => content !== undefined);
  return {
    grpcOptions: GRPC_OPTIONS,
    // Without an authority of our own those of the system count, which the types do not know.
    ...(hasFiles && { credentials: credentials as NonNullable<IOptions['credentials']> }),
    ...(user !== '' && { auth: { username: user, password: readPem(passwordFile).toString().trimEnd() } }),
    faultHandling: { host: () => passThrough, global: passThrough },
  };
}

/** etcd3 would try again by itself and forget that it did: what that means is decided here. */
const passThrough = {
  execute: async (run: (context: object) => unknown) => run({}),
} as unknown as FaultPolicy;

function readPem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new SwarmError('invalid-argument', `a file for etcd cannot be read: ${messageOf(error)}`);
  }
}

/** Nobody knows whether it happened, or it did not: another attempt may do better. */
function isTransient(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof SwarmError) return false;
  if (error instanceof EtcdInvalidAuthTokenError) return true;
  return isRecoverableError(error) || /too many requests|auth store is old/.test(error.message);
}

function unlessAborted<T>(promise: Promise<T>, signals: readonly AbortSignal[]): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signals.find(({ aborted }) => aborted)?.reason);
    for (const signal of signals) signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => {
      for (const signal of signals) signal.removeEventListener('abort', onAbort);
    });
  });
}
