// The codec interface that generated code implements, over protobufjs' reader and writer.
// 64-bit integers are JavaScript numbers, asserted to be exact: an index or a time never reaches 2^53.

import protobuf from 'protobufjs/minimal.js';
import { assert } from '../core/assert.ts';

// Without this, protobufjs returns Long objects whenever the `long` package happens to be installed.
(protobuf.util as { Long: unknown }).Long = undefined;
protobuf.configure();

export type Writer = protobuf.Writer;
export type Reader = protobuf.Reader;

/** Encodes and decodes one message type. Decoded messages are plain objects. */
export interface Codec<T> {
  write(message: T, writer: Writer): Writer;
  read(reader: Reader, end: number): T;
}

/** A message in the making. */
export type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export function encode<T>(codec: Codec<T>, message: T): Buffer {
  return codec.write(message, protobuf.Writer.create()).finish() as Buffer;
}

/** `encode` for a great many messages in a row: they share one work buffer. */
export function newEncoder(): typeof encode {
  const writer = protobuf.Writer.create();
  return (codec, message) => codec.write(message, writer.reset()).finish() as Buffer;
}

const keptBytes = new WeakMap<object, Uint8Array>();

/** The bytes of a message that is written again and again; they are kept as long as it is. */
export function encodeOnce<T extends object>(codec: Codec<T>, message: T): Uint8Array {
  const kept = keptBytes.get(message) ?? encode(codec, message);
  keptBytes.set(message, kept);
  return kept;
}

/** Throws a RangeError or Error of protobufjs on bytes that are no such message. */
export function decode<T>(codec: Codec<T>, bytes: Uint8Array): T {
  return codec.read(protobuf.Reader.create(bytes), bytes.length);
}

/** Of every repeated field that a message does not have: a manager holds millions of them. */
export const NONE = Object.freeze([]) as unknown as never[];

/** A 64-bit integer of the wire as a number; asserts that none of its value is lost. */
export function safeInteger(value: unknown): number {
  assert(
    typeof value === 'number' && Number.isSafeInteger(value),
    () => `64-bit integer ${value} is not exact`,
  );
  return value;
}

/** One RPC: its path, its codecs and which sides stream. */
export interface Method<Request, Response, Shape extends MethodShape = MethodShape> {
  readonly path: string;
  readonly shape: Shape;
  /** Everybody else is refused. */
  readonly callers: readonly CallerRole[];
  /** It changes nothing: it may be asked again whenever nobody knows whether it was answered. */
  readonly isReadOnly: boolean;
  readonly request: Codec<Request>;
  readonly response: Codec<Response>;
}

/**
 * Who calls. `local`: over a socket of this machine. `anyone`: with or without a certificate. `worker`, `manager`: a node of
 * the cluster by its certificate and by what the cluster has it for now.
 */
export type CallerRole = 'local' | 'anyone' | 'worker' | 'manager';

export type MethodShape = 'unary' | 'server-stream' | 'client-stream' | 'bidi';

// biome-ignore lint/suspicious/noExplicitAny: a service is a record of methods of any message types
export type Service = Readonly<Record<string, Method<any, any>>>;
