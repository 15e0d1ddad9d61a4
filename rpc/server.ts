// Typed gRPC servers: handlers take and return plain messages or async iterables and throw SwarmErrors.

import { type EventEmitter, once } from 'node:events';
import { chmodSync, rmSync } from 'node:fs';
import {
  Server as GrpcServer,
  type handleUnaryCall,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { SwarmError, toSwarmError } from '../core/errors.ts';
import { TrunkService } from '../proto/generated/trunk.ts';
import { type Codec, decode, encode, type Method, type MethodShape, type Service } from '../proto/wire.ts';
import { admit, type Caller, type forwardedCaller } from './caller.ts';
import { LocalListener } from './local-listener.ts';
import { toBytes } from './raw-messages.ts';
import { toServiceError } from './status.ts';
import type { TlsIdentity } from './tls.ts';
import { TlsListener } from './tls-listener.ts';
import type { FrameClock } from './trunk-frames.ts';
import { type CarriedMethod, trunkHandlers } from './trunk-server.ts';

export interface CallContext {
  /** Aborts when the client goes away or the server stops. */
  readonly signal: AbortSignal;
  /** Who asks; when another manager has passed the call on, who has asked that. */
  readonly caller: Caller;
  readonly isForwarded: boolean;
}

type HandlerOf<Request, Response, Shape extends MethodShape> = Shape extends 'unary'
  ? (request: Request, context: CallContext) => Promise<Response> | Response
  : Shape extends 'server-stream'
    ? (request: Request, context: CallContext) => AsyncIterable<Response>
    : Shape extends 'client-stream'
      ? (requests: AsyncIterable<Request>, context: CallContext) => Promise<Response>
      : (requests: AsyncIterable<Request>, context: CallContext) => AsyncIterable<Response>;

/** What implements a service: one handler per method. */
export type Handlers<S extends Service> = {
  readonly [K in keyof S]: S[K] extends Method<infer Request, infer Response, infer Shape>
    ? HandlerOf<Request, Response, Shape>
    : never;
};

/** Sees every finished call: for metrics and logs. */
export type CallObserver = (path: string, durationMs: number, error: unknown) => void;

/** A handler of a method that is not known here. */
export interface AnyHandler {
  (request: never, context: CallContext): unknown;
  /** Its requests are the bytes that came; what it answers may be bytes as well. */
  readonly takesBytes?: boolean;
}
type AnyCall =
  | ServerUnaryCall<unknown, unknown>
  | ServerWritableStream<unknown, unknown>
  | ServerReadableStream<unknown, unknown>
  | ServerDuplexStream<unknown, unknown>;

export interface RpcServerOptions {
  readonly observe?: CallObserver;
  /** Of this machine: who calls over its sockets. */
  readonly nodeId?: string;
  /** What the cluster has the caller for now, whatever its certificate says. Throws `permission-denied`. */
  readonly identify?: (caller: Caller) => Caller;
  /** Told of every call that was refused for who made it. */
  readonly onRefused?: (path: string, caller: Caller, error: SwarmError) => void;
}

const MESSAGE_BYTES_MAX = 64 * 2 ** 20;

export class RpcServer {
  readonly #server = new GrpcServer({
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
  });
  readonly #options: RpcServerOptions;
  readonly #stopping = new AbortController();
  #tls: TlsListener | undefined;
  readonly #local: LocalListener[] = [];
  /** What may come over a trunk. */
  readonly #carried = new Map<string, CarriedMethod>();

  constructor(options: RpcServerOptions = {}) {
    this.#options = options;
  }

  add<S extends Service>(service: S, handlers: Handlers<S>): void {
    this.#addToServer(service, handlers);
    for (const [name, method] of Object.entries(service))
      if (method.shape === 'bidi')
        this.#carried.set(method.path, { method, handle: handlers[name as keyof S] as AnyHandler });
  }

  /** Other managers may call what streams both ways over trunks as well: many calls on one stream. */
  addTrunk(clock: FrameClock): void {
    const { observe } = this.#options;
    const admit: Parameters<typeof trunkHandlers>[0]['admit'] = (...call) => this.#admit(...call);
    const handlers = trunkHandlers({ methods: this.#carried, admit, clock, ...(observe && { observe }) });
    this.#addToServer(TrunkService, handlers);
  }

  #addToServer<S extends Service>(service: S, handlers: Handlers<S>): void {
    const definitions: Record<string, object> = {};
    const implementations: Record<string, UntypedHandleCall> = {};
    for (const [name, method] of Object.entries(service)) {
      const handler = handlers[name as keyof S] as AnyHandler;
      definitions[name] = definitionOf(method, handler);
      implementations[name] = this.#implement(method, handler);
    }
    this.#server.addService(definitions as never, implementations);
  }

  /** Listens on a unix socket; a stale one is replaced. `mode` are its permission bits. */
  async listen(socketPath: string, mode: number): Promise<void> {
    rmSync(socketPath, { force: true });
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    const listener = await LocalListener.listen(socketPath, (socket) => injector.injectConnection(socket));
    this.#local.push(listener);
    // It was stopped meanwhile.
    if (this.#stopping.signal.aborted) {
      listener.close();
      return;
    }
    chmodSync(socketPath, mode);
  }

  /** Listens for nodes, with and without a certificate of the cluster. Returns the port. */
  async listenTls(
    address: { readonly host: string; readonly port: number },
    { identity, clusterId }: { readonly identity: TlsIdentity; readonly clusterId: string },
  ): Promise<number> {
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#tls = await TlsListener.listen(
      { identity, clusterId, onConnection: (socket) => injector.injectConnection(socket) },
      address,
    );
    return this.#tls.port;
  }

  /** What new connections see. */
  setIdentity(identity: TlsIdentity): void {
    this.#tls?.setIdentity(identity);
  }

  /** Ends the connections of a node that is no member any more. */
  disconnect(nodeId: string): void {
    this.#tls?.disconnect(nodeId);
  }

  /** Ends every call and closes the socket. */
  stop(): void {
    this.#stopping.abort(new SwarmError('unavailable', 'the server is stopping'));
    this.#tls?.close();
    for (const listener of this.#local) listener.close();
    this.#server.forceShutdown();
  }

  #contextOf(method: Service[string], call: AnyCall, signal: AbortSignal): CallContext {
    const peer = call.getPeer();
    const shown = this.#tls?.callerOf(peer) ?? this.#localCaller(peer, this.#options.nodeId ?? '');
    return { signal, ...this.#admit(method, shown, (key) => call.metadata.get(key)[0]) };
  }

  /** Throws when the caller may not call this. */
  #admit(method: Service[string], shown: Caller, metadata: Parameters<typeof forwardedCaller>[0]) {
    const { identify = (caller: Caller) => caller, onRefused } = this.#options;
    try {
      return admit(method, shown, identify, metadata);
    } catch (error) {
      onRefused?.(method.path, shown, toSwarmError(error));
      throw error;
    }
  }

  #localCaller(peer: string, nodeId: string): Caller {
    const listeners = this.#local;
    return {
      role: 'local',
      nodeId,
      get userId() {
        return listeners.find((listener) => listener.has(peer))?.userOf(peer);
      },
    };
  }

  #implement(method: Service[string], handler: AnyHandler): UntypedHandleCall {
    const { observe = () => {} } = this.#options;
    const run = async <T>(call: AnyCall, body: (context: CallContext) => Promise<T>): Promise<T> => {
      const startedMs = performance.now();
      const gone = new AbortController();
      (call as EventEmitter).on('cancelled', () =>
        gone.abort(new SwarmError('cancelled', 'the client went away')),
      );
      try {
        const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
        const result = await body(this.#contextOf(method, call, signal));
        observe(method.path, performance.now() - startedMs, undefined);
        return result;
      } catch (error) {
        observe(method.path, performance.now() - startedMs, error);
        throw error;
      }
    };
    switch (method.shape) {
      case 'unary':
        return ((call, callback) => {
          run(call, async (context) => handler(call.request as never, context)).then(
            (value) => callback(null, value),
            (error) => callback(toServiceError(error)),
          );
        }) satisfies handleUnaryCall<unknown, unknown>;
      case 'client-stream':
        return (
          call: ServerReadableStream<unknown, unknown>,
          callback: (error: object | null, value?: unknown) => void,
        ) => {
          run(call, async (context) => handler(call as never, context)).then(
            (value) => callback(null, value),
            (error) => callback(toServiceError(error)),
          );
        };
      case 'server-stream':
        return (call: ServerWritableStream<unknown, unknown>) => {
          run(call, (context) =>
            pump(() => handler(call.request as never, context), call, context.signal),
          ).catch((error) => endWith(call, error));
        };
      case 'bidi':
        return (call: ServerDuplexStream<unknown, unknown>) => {
          run(call, (context) =>
            pump(() => handler(requestsOf(call) as never, context), call, context.signal),
          ).catch((error) => endWith(call, error));
        };
    }
  }
}

function definitionOf(method: Service[string], handler: AnyHandler): object {
  return {
    path: method.path,
    requestStream: method.shape === 'client-stream' || method.shape === 'bidi',
    responseStream: method.shape === 'server-stream' || method.shape === 'bidi',
    requestSerialize: (message: unknown) => encode(method.request as Codec<unknown>, message),
    requestDeserialize: (bytes: Buffer) =>
      handler.takesBytes ? bytes : decode(method.request as Codec<unknown>, bytes),
    responseSerialize: (message: unknown) =>
      handler.takesBytes
        ? toBytes(method.response as Codec<unknown>, message)
        : encode(method.response as Codec<unknown>, message),
    responseDeserialize: (bytes: Buffer) => decode(method.response as Codec<unknown>, bytes),
  };
}

/** Writes what the handler yields, at the speed of the reader; a throw ends the call with its status. */
async function pump(
  messages: () => unknown,
  call: ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>,
  signal: AbortSignal,
): Promise<void> {
  let unwritten = 0;
  let onWritten = () => {};
  const written = () => {
    if (--unwritten === 0) onWritten();
  };
  try {
    for await (const message of messages() as AsyncIterable<unknown>) {
      if (signal.aborted) return;
      unwritten++;
      if (!call.write(message, written)) await once(call, 'drain', { signal });
    }
    call.end();
  } catch (error) {
    // The error ends those who read the call as well, and they drop what is not written yet, the status with it.
    if (unwritten > 0 && !signal.aborted)
      await new Promise<void>((resolve) => {
        onWritten = resolve;
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
    if (!signal.aborted) throw error;
  }
}

/** A handler that stops reading, or throws, has something to answer still: the call stays. */
function requestsOf(call: ServerDuplexStream<unknown, unknown>): AsyncIterable<unknown> {
  return { [Symbol.asyncIterator]: () => call.iterator({ destroyOnReturn: false }) };
}

function endWith(call: EventEmitter, error: unknown): void {
  call.emit('error', toServiceError(error));
}
