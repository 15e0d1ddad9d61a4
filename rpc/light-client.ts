// Typed gRPC clients over node:http2 alone, for programs that start, ask once and end: loading @grpc/grpc-js takes
// longer than everything else the command line does. Same clients as `client.ts`, without its reconnecting.

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { messageOf, SwarmError } from '../core/errors.ts';
import { type Codec, decode, encode, type Service } from '../proto/wire.ts';
import type { CallOptions, Client } from './client.ts';
import { codeOfStatus, HINT_KEY, STATUS_OK } from './status-codes.ts';

/** One connection to a unix socket, made by the first call. */
export interface LightChannel {
  readonly session: () => ClientHttp2Session;
  /** What ended the connection. */
  readonly failure: () => Error | undefined;
  close(): void;
}

// One flag byte and four of length stand before each message.
const FRAME_HEADER_BYTES = 5;
const MESSAGE_BYTES_MAX = 64 * 2 ** 20;
// HTTP/2's own 64 KiB would make every large list wait for the round trip.
const WINDOW_BYTES = 4 * 2 ** 20;

export function openLightChannel(socketPath: string): LightChannel {
  let session: ClientHttp2Session | undefined;
  let failure: Error | undefined;
  return {
    session: () => {
      if (session === undefined) {
        session = openSession(socketPath);
        // Each call reports it as its own.
        session.on('error', (error) => {
          failure = error;
        });
      }
      return session;
    },
    failure: () => failure,
    close: () => session?.destroy(),
  };
}

function openSession(socketPath: string): ClientHttp2Session {
  const session = connectHttp2('http://localhost', {
    createConnection: () => connectSocket(socketPath),
    settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
  });
  session.on('connect', () => {
    // A request that cannot be encoded ends the session before it has begun.
    if (!session.destroyed) session.setLocalWindowSize(WINDOW_BYTES);
  });
  return session;
}

export function createLightClient<S extends Service>(service: S, channel: LightChannel): Client<S> {
  const entries = Object.entries(service).map(([name, method]) => [name, bind(channel, method)]);
  return Object.fromEntries(entries) as Client<S>;
}

type AnyMethod = Service[string];

function bind(channel: LightChannel, method: AnyMethod): unknown {
  switch (method.shape) {
    case 'unary':
      return async (request: unknown, options: CallOptions = {}) => {
        const call = new LightCall(channel, method, options);
        call.stream.end(call.frame(request));
        return call.answer();
      };
    case 'server-stream':
      return (request: unknown, options: CallOptions = {}) => {
        const call = new LightCall(channel, method, options);
        call.stream.end(call.frame(request));
        return call.messages();
      };
    case 'client-stream':
      return (options: CallOptions = {}) => {
        const call = new LightCall(channel, method, options);
        const response = call.answer();
        // Whoever only sends hears of a failure there.
        response.catch(() => {});
        return {
          send: (request: unknown) => call.send(request),
          end: () => void call.stream.end(),
          response,
        };
      };
    case 'bidi':
      return (options: CallOptions = {}) => {
        const call = new LightCall(channel, method, options);
        return {
          send: (request: unknown) => call.send(request),
          end: () => void call.stream.end(),
          [Symbol.asyncIterator]: () => call.messages(),
        };
      };
  }
}

class LightCall {
  readonly stream: ClientHttp2Stream;
  readonly #method: AnyMethod;
  readonly #channel: LightChannel;
  /** Headers of the answer, overlaid by its trailers: one of them has the status. */
  #answer: IncomingHttpHeaders = {};
  #failure: SwarmError | undefined;

  constructor(channel: LightChannel, method: AnyMethod, { signal, timeoutMs, metadata }: CallOptions) {
    this.#method = method;
    this.#channel = channel;
    this.stream = channel.session().request({
      ':method': 'POST',
      ':path': method.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(timeoutMs !== undefined && { 'grpc-timeout': `${Math.ceil(timeoutMs)}m` }),
      ...metadata,
    });
    const collect = (headers: IncomingHttpHeaders) => {
      this.#answer = { ...this.#answer, ...headers };
    };
    this.stream.on('response', collect).on('trailers', collect);
    this.stream.on('error', () => {});
    this.#endBy(signal, timeoutMs);
  }

  frame(message: unknown): Buffer {
    const bytes = encode(this.#method.request as Codec<unknown>, message);
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + bytes.length);
    frame[0] = 0;
    frame.writeUInt32BE(bytes.length, 1);
    frame.set(bytes, FRAME_HEADER_BYTES);
    return frame;
  }

  async send(message: unknown): Promise<void> {
    if (this.stream.destroyed || this.stream.closed) throw this.#toError(undefined);
    if (this.stream.write(this.frame(message))) return;
    await new Promise<void>((resolve) => {
      const goOn = () => {
        this.stream.off('drain', goOn).off('close', goOn);
        resolve();
      };
      this.stream.on('drain', goOn).on('close', goOn);
    });
  }

  /** Every message of the answer; leaving the loop early ends the call. */
  async *messages(): AsyncGenerator<unknown, void, undefined> {
    const reader = new FrameReader();
    try {
      for await (const chunk of this.stream) {
        reader.push(chunk as Buffer);
        for (let bytes = reader.next(); bytes !== undefined; bytes = reader.next())
          yield decode(this.#method.response as Codec<unknown>, bytes);
      }
    } catch (error) {
      throw this.#toError(error);
    } finally {
      if (!this.stream.closed) this.stream.close(constants.NGHTTP2_CANCEL);
    }
    if (this.#failure !== undefined || Number(this.#answer['grpc-status'] ?? -1) !== STATUS_OK)
      throw this.#toError(undefined);
  }

  /** The one message of the answer. */
  async answer(): Promise<unknown> {
    let only: unknown;
    for await (const message of this.messages()) only = message;
    if (only === undefined) throw new SwarmError('internal', `${this.#method.path} has answered nothing`);
    return only;
  }

  #endBy(signal: AbortSignal | undefined, timeoutMs: number | undefined): void {
    const end = (failure: SwarmError) => {
      this.#failure ??= failure;
      this.stream.close(constants.NGHTTP2_CANCEL);
    };
    if (timeoutMs !== undefined) {
      const late = () => end(new SwarmError('deadline-exceeded', `no answer in ${timeoutMs} ms`));
      const timer = setTimeout(late, timeoutMs);
      this.stream.once('close', () => clearTimeout(timer));
    }
    if (signal === undefined) return;
    const onAbort = () => end(new SwarmError('cancelled', 'the call was cancelled'));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    this.stream.once('close', () => signal.removeEventListener('abort', onAbort));
  }

  /** Why the call has no good end: our own doing, the server's status, or the connection. */
  #toError(cause: unknown): SwarmError {
    if (this.#failure !== undefined) return this.#failure;
    if (cause instanceof SwarmError) return cause;
    const status = this.#answer['grpc-status'];
    if (status !== undefined && Number(status) !== STATUS_OK) {
      const hint = this.#answer[HINT_KEY];
      return new SwarmError(codeOfStatus(Number(status)), decodeMessage(this.#answer['grpc-message']), {
        ...(typeof hint === 'string' && { hint: Buffer.from(hint, 'base64').toString() }),
      });
    }
    const reason = this.#channel.failure() ?? cause;
    return new SwarmError(
      'unavailable',
      reason === undefined ? 'the connection was lost' : messageOf(reason),
      {
        cause: reason,
      },
    );
  }
}

/** grpc-message is percent-encoded UTF-8. */
function decodeMessage(text: unknown): string {
  if (typeof text !== 'string' || text === '') return 'no details';
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Cuts a stream of bytes into messages. */
class FrameReader {
  #chunks: Buffer[] = [];
  #size = 0;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
  }

  /** The next message when all of it is there. */
  next(): Buffer | undefined {
    if (this.#size < FRAME_HEADER_BYTES) return undefined;
    // Joins only when a frame may be complete: large messages come in many chunks.
    if ((this.#chunks[0] as Buffer).length < FRAME_HEADER_BYTES) this.#join();
    const first = this.#chunks[0] as Buffer;
    const length = first.readUInt32BE(1);
    if (length > MESSAGE_BYTES_MAX)
      throw new SwarmError('resource-exhausted', `a message of ${length} bytes is too large`);
    if (first[0] !== 0) throw new SwarmError('unimplemented', 'compressed messages are not understood');
    if (this.#size < FRAME_HEADER_BYTES + length) return undefined;
    this.#join();
    const all = this.#chunks[0] as Buffer;
    const end = FRAME_HEADER_BYTES + length;
    this.#chunks = [all.subarray(end)];
    this.#size = all.length - end;
    return all.subarray(FRAME_HEADER_BYTES, end);
  }

  #join(): void {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks, this.#size)];
  }
}
