// Typed clients over @grpc/grpc-js: promises and async iterables, SwarmErrors, abort signals.

import { once } from 'node:events';
import { createConnection } from 'node:net';
import {
  type ChannelCredentials,
  type ChannelOptions,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  credentials,
  type CallOptions as GrpcCallOptions,
  Client as GrpcClient,
  Metadata,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { parseHostPort } from '../core/addresses.ts';
import { SwarmError } from '../core/errors.ts';
import { type Codec, decode, encode, type Method, type MethodShape, type Service } from '../proto/wire.ts';
import { ConnectionWatch } from './connection-watch.ts';
import { fromServiceError } from './status.ts';

/** Keys that end in -bin have bytes. */
export type CallMetadata = Readonly<Record<string, string | Buffer>>;

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Fails with deadline-exceeded after this long. */
  readonly timeoutMs?: number;
  readonly metadata?: CallMetadata;
}

/** Messages the client sends on a streaming call. */
export interface Outgoing<Request> {
  /** Resolves when the connection can take more. Rejects after the call has failed. */
  send(request: Request): Promise<void>;
  /** No more messages; the answer can still arrive. */
  end(): void;
}

export interface ClientStreamCall<Request, Response> extends Outgoing<Request> {
  readonly response: Promise<Response>;
}

export interface BidiCall<Request, Response> extends Outgoing<Request>, AsyncIterable<Response> {}

type CallOf<Request, Response, Shape extends MethodShape> = Shape extends 'unary'
  ? (request: Request, options?: CallOptions) => Promise<Response>
  : Shape extends 'server-stream'
    ? (request: Request, options?: CallOptions) => AsyncIterable<Response>
    : Shape extends 'client-stream'
      ? (options?: CallOptions) => ClientStreamCall<Request, Response>
      : (options?: CallOptions) => BidiCall<Request, Response>;

export type Client<S extends Service> = {
  readonly [K in keyof S]: S[K] extends Method<infer Request, infer Response, infer Shape>
    ? CallOf<Request, Response, Shape>
    : never;
};

/** A connection that several typed clients share. */
export interface Channel {
  readonly grpc: GrpcClient;
  /** Whether the other end's machine takes a new connection now; absent where there is no network between. */
  readonly reach?: (signal: AbortSignal) => Promise<boolean>;
  /** The file descriptor of the TCP connection, while there is one. */
  readonly descriptor?: () => number | undefined;
  close(): void;
}

// containerd answers in messages up to 16 MiB; lists of ours are paged far below this.
const MESSAGE_BYTES_MAX = 64 * 2 ** 20;
// Above the slowest round trip that a cluster works with.
const REACH_LIMIT_MS = 500;

/** Connects lazily to `unix:///path` (or any gRPC target). A lost connection is retried for ever, at most 1 s apart. */
export function openChannel(
  target: string,
  options: ChannelOptions = {},
  security: ChannelCredentials = credentials.createInsecure(),
): Channel {
  const grpc = new GrpcClient(target, security, {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 1000,
    'grpc.enable_retries': 0,
    // Otherwise a stream keeps the first megabyte that it has sent, small messages with the buffers that they lie in.
    'grpc.per_rpc_retry_buffer_size': 0,
    ...options,
  });
  return { grpc, close: () => grpc.close() };
}

/** Connects to a node at host:port. Nodes are known by their certificates and not by names, so the name asked for is one for all. */
export function openTlsChannel(
  address: string,
  security: ChannelCredentials,
  options: ChannelOptions = {},
): Channel {
  const target = { 'grpc.ssl_target_name_override': 'swarm-manager', ...options };
  const watch = new ConnectionWatch(parseHostPort(address, 'manager'));
  const channel = openChannel(address, target, security);
  return {
    ...channel,
    reach: (signal) => takesConnections(address, signal),
    descriptor: () => watch.descriptor,
    close() {
      watch[Symbol.dispose]();
      channel.close();
    },
  };
}

/** One attempt: the kernel would repeat it after one, three and seven seconds. */
async function takesConnections(address: string, signal: AbortSignal): Promise<boolean> {
  const socket = createConnection(parseHostPort(address, 'manager'));
  try {
    await once(socket, 'connect', { signal: AbortSignal.any([signal, AbortSignal.timeout(REACH_LIMIT_MS)]) });
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** For a few calls on a connection of their own. */
export async function withChannel<T>(channel: Channel, use: (channel: Channel) => Promise<T>): Promise<T> {
  try {
    return await use(channel);
  } finally {
    channel.close();
  }
}

/** A client of one service on a channel. `metadata` goes with every call. */
export function createClient<S extends Service>(
  service: S,
  channel: Channel,
  metadata: CallMetadata = {},
): Client<S> {
  const entries = Object.entries(service).map(([name, method]) => [
    name,
    bind(channel.grpc, method, metadata, codecsOf(method)),
  ]);
  return Object.fromEntries(entries) as Client<S>;
}

/** Calls a method for somebody else: messages that are streamed are bytes as they came, and are sent on as they are. */
export function createRelay(
  method: AnyMethod,
  channel: Channel,
  metadata: CallMetadata,
): (options: CallOptions) => BidiCall<unknown, unknown> {
  const asTheyAre = { serialize: (message: Buffer) => message, deserialize: (bytes: Buffer) => bytes };
  return bind(channel.grpc, method, metadata, asTheyAre as Codecs) as ReturnType<typeof createRelay>;
}

type AnyMethod = Service[string];
type Cancellable = { cancel(): void; once(event: 'status', listener: () => void): unknown };

interface Codecs {
  readonly serialize: (message: unknown) => Buffer;
  readonly deserialize: (bytes: Buffer) => unknown;
}

function codecsOf(method: AnyMethod): Codecs {
  return {
    serialize: (message) => encode(method.request as Codec<unknown>, message),
    deserialize: (bytes) => decode(method.response as Codec<unknown>, bytes),
  };
}

function bind(
  grpc: GrpcClient,
  method: AnyMethod,
  base: CallMetadata,
  { serialize, deserialize }: Codecs,
): unknown {
  const prepare = (options: CallOptions): [Metadata, GrpcCallOptions] => {
    const metadata = new Metadata();
    for (const [key, value] of Object.entries({ ...base, ...options.metadata })) metadata.set(key, value);
    return [metadata, options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs }];
  };
  switch (method.shape) {
    case 'unary':
      return (request: unknown, options: CallOptions = {}) => {
        const { promise, resolve, reject } = Promise.withResolvers<unknown>();
        const call = grpc.makeUnaryRequest(
          method.path,
          serialize,
          deserialize,
          request,
          ...prepare(options),
          (error, value) => (error ? reject(fromServiceError(error)) : resolve(value)),
        );
        cancelOnAbort(call, options.signal);
        return promise;
      };
    case 'server-stream':
      return (request: unknown, options: CallOptions = {}) => {
        const call = grpc.makeServerStreamRequest(
          method.path,
          serialize,
          deserialize,
          request,
          ...prepare(options),
        );
        cancelOnAbort(call, options.signal);
        return responses(call);
      };
    case 'client-stream':
      return (options: CallOptions = {}) => {
        const { promise, resolve, reject } = Promise.withResolvers<unknown>();
        const call = grpc.makeClientStreamRequest(
          method.path,
          serialize,
          deserialize,
          ...prepare(options),
          (error, value) => (error ? reject(fromServiceError(error)) : resolve(value)),
        );
        cancelOnAbort(call, options.signal);
        // A failure also ends `send`; whoever only sends must not crash the process for not awaiting the answer.
        promise.catch(() => {});
        return { ...outgoing(call), response: promise };
      };
    case 'bidi':
      return (options: CallOptions = {}) => {
        const call = grpc.makeBidiStreamRequest(method.path, serialize, deserialize, ...prepare(options));
        cancelOnAbort(call, options.signal);
        const incoming = responses(call);
        return { ...outgoing(call), [Symbol.asyncIterator]: () => incoming[Symbol.asyncIterator]() };
      };
  }
}

function cancelOnAbort(call: Cancellable, signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  if (signal.aborted) {
    call.cancel();
    return;
  }
  const onAbort = () => call.cancel();
  signal.addEventListener('abort', onAbort, { once: true });
  call.once('status', () => signal.removeEventListener('abort', onAbort));
}

function responses(
  call: ClientReadableStream<unknown> | ClientDuplexStream<unknown, unknown>,
): AsyncIterable<unknown> {
  // The stream reports a failed call once as 'error'; without a listener an unread stream would end the process.
  call.on('error', () => {});
  // Reading begins now: grpc-js takes all that comes before it, and never holds the sender up after that.
  call.read(0);
  return {
    async *[Symbol.asyncIterator]() {
      try {
        yield* call;
      } catch (error) {
        throw fromServiceError(error);
      } finally {
        call.cancel();
      }
    },
  };
}

function outgoing(
  call: ClientWritableStream<unknown> | ClientDuplexStream<unknown, unknown>,
): Outgoing<unknown> {
  const over = new AbortController();
  call.on('error', (error) => over.abort(fromServiceError(error)));
  // A client stream reports its end here only, and never makes room again.
  call.on('status', (ending: StatusObject) =>
    over.abort(
      ending.code === status.OK
        ? new SwarmError('cancelled', 'the other side has ended the call')
        : fromServiceError(ending),
    ),
  );
  return {
    async send(message) {
      over.signal.throwIfAborted();
      if (call.write(message)) return;
      try {
        await once(call, 'drain', { signal: over.signal });
      } catch (error) {
        over.signal.throwIfAborted();
        throw fromServiceError(error);
      }
    },
    end: () => call.end(),
  };
}
