// A netlink socket. The kernel does the work of a request while it is being sent and has queued every answer
// when send returns, so nothing here waits but what is done aside. A socket stays in the network namespace in which it was opened.

import { assert } from '../../core/assert.ts';
import { check, lastErrno, libcFunctions, SystemCallError } from './libc.ts';
import { beginBatch, endBatch } from './netfilter.ts';
import {
  decodeError,
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  type NetlinkReply,
  netlinkFlags,
  netlinkTypes,
  uint32,
} from './netlink.ts';

export const netlinkProtocols = { route: 0, netfilter: 12 } as const;

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_EXT_ACK = 11;
const EAGAIN = 11;
const SEND = 'send to netlink';
const RECEIVE = 'receive from netlink';

/** Room for a whole ruleset in one send: a transaction is one datagram. */
const SOCKET_BUFFER_BYTES = 8 << 20;
/** The kernel fills at most 32 KiB per datagram of a dump. */
const RECEIVE_BUFFER_BYTES = 64 << 10;
/** One for all sockets: what arrives is copied out before anything else happens. */
const receiveBuffer = Buffer.alloc(RECEIVE_BUFFER_BYTES);

/** A request that the kernel refused: which one, and its own explanation where it gives one. */
class NetlinkError extends SystemCallError {
  constructor(what: string, errno: number, explanation: string) {
    super(explanation === '' ? what : `${what} (${explanation})`, errno);
  }
}

export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  #sequence = 1;
  #open = true;

  constructor(protocol: number) {
    this.#fd = check(libcFunctions.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), 'socket');
    const address = Buffer.alloc(12);
    address.writeUInt16LE(AF_NETLINK);
    check(libcFunctions.bind(this.#fd, address, address.length), 'bind');
    this.#setOption(SOL_NETLINK, NETLINK_EXT_ACK, 1);
    this.#setOption(SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES);
    this.#setOption(SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES);
  }

  /** Sends all in one call. Not atomic for rtnetlink: what precedes a failure stays done. Throws the first. */
  execute(messages: readonly NetlinkMessage[]): void {
    if (messages.length > 0) this.#exchange(messages, messages.length - 1);
  }

  /**
   * The same on another thread, for what takes the kernel long. The socket is for nothing else until it is done. A message
   * that fails with `expected` does not count as failed.
   */
  async executeAside(messages: readonly NetlinkMessage[], expected = 0): Promise<void> {
    if (messages.length === 0) return;
    const { first, datagram } = this.#encode(messages, messages.length - 1);
    await this.#sendAside(datagram);
    this.#collect(messages, messages.length - 1, first, expected);
  }

  /** Netfilter only: all or nothing. */
  executeBatch(messages: readonly NetlinkMessage[]): void {
    // The acknowledgement of the last request, not of the end marker, tells that the batch is committed.
    if (messages.length > 0) this.#exchange([beginBatch, ...messages, endBatch], messages.length);
  }

  /** The one answer to a question that changes nothing. */
  ask(message: NetlinkMessage): NetlinkReply {
    this.#send(encodeMessage(message, this.#sequence++, 0));
    const [reply] = this.#receive() ?? [];
    if (reply === undefined) throw new NetlinkError(message.what, EAGAIN, 'there is no answer');
    if (reply.type !== netlinkTypes.error) return reply;
    const { errno, explanation } = decodeError(reply);
    throw new NetlinkError(message.what, errno, explanation);
  }

  /** Everything that a dump request lists. */
  dump(message: NetlinkMessage): NetlinkReply[] {
    this.#send(encodeMessage(message, this.#sequence++, netlinkFlags.dump));
    const entries: NetlinkReply[] = [];
    for (let replies = this.#receive(); replies !== undefined; replies = this.#receive())
      if (takeEntries(message, replies, (entry) => entries.push(entry))) return entries;
    throw new NetlinkError(message.what, EAGAIN, 'the dump has no end');
  }

  /** The same on another thread, as `executeAside`: `each` is called with a part while the kernel has not read the next. */
  async dumpAside(message: NetlinkMessage, each: (entry: NetlinkReply) => void): Promise<void> {
    await this.#sendAside(encodeMessage(message, this.#sequence++, netlinkFlags.dump));
    const buffer = Buffer.alloc(RECEIVE_BUFFER_BYTES);
    for (let isWhole = false; !isWhole; ) {
      const length = await aside(RECEIVE, libcFunctions.recv, this.#fd, buffer, buffer.length, MSG_DONTWAIT);
      isWhole = takeEntries(message, decodeMessages(buffer.subarray(0, length)), each);
    }
  }

  [Symbol.dispose](): void {
    if (this.#open) libcFunctions.close(this.#fd);
    this.#open = false;
  }

  #exchange(messages: readonly NetlinkMessage[], acknowledged: number): void {
    const { first, datagram } = this.#encode(messages, acknowledged);
    this.#send(datagram);
    this.#collect(messages, acknowledged, first);
  }

  #encode(messages: readonly NetlinkMessage[], acknowledged: number): { first: number; datagram: Buffer } {
    const first = this.#sequence;
    this.#sequence += messages.length;
    const encoded = messages.map((message, index) =>
      encodeMessage(message, first + index, index === acknowledged ? netlinkFlags.ack : 0),
    );
    return { first, datagram: encoded.length === 1 ? encoded[0]! : Buffer.concat(encoded) };
  }

  /** Throws the first failure. */
  #collect(messages: readonly NetlinkMessage[], acknowledged: number, first: number, expected = 0): void {
    let failure: NetlinkError | undefined;
    let isAcknowledged = false;
    for (let replies = this.#receive(); replies !== undefined; replies = this.#receive()) {
      for (const reply of replies) {
        const index = reply.sequence - first;
        if (reply.type !== netlinkTypes.error || index < 0 || index >= messages.length) continue;
        const { errno, explanation } = decodeError(reply);
        if (index === acknowledged) isAcknowledged = true;
        if (errno !== 0 && errno !== expected)
          failure ??= new NetlinkError(messages[index]!.what, errno, explanation);
      }
    }
    if (failure !== undefined) throw failure;
    assert(isAcknowledged, `the kernel did not answer "${messages[acknowledged]!.what}"`);
  }

  #send(datagram: Buffer): void {
    assert(this.#open, 'the netlink socket is closed');
    check(Number(libcFunctions.send(this.#fd, datagram, datagram.length, 0)), SEND);
  }

  async #sendAside(datagram: Buffer): Promise<void> {
    assert(this.#open, 'the netlink socket is closed');
    await aside(SEND, libcFunctions.send, this.#fd, datagram, datagram.length, 0);
  }

  /** The next datagram, or undefined when there is none. */
  #receive(): NetlinkReply[] | undefined {
    const length = Number(libcFunctions.recv(this.#fd, receiveBuffer, RECEIVE_BUFFER_BYTES, MSG_DONTWAIT));
    if (length < 0 && lastErrno() === EAGAIN) return undefined;
    check(length, RECEIVE);
    return decodeMessages(Buffer.from(receiveBuffer.subarray(0, length)));
  }

  #setOption(level: number, name: number, value: number): void {
    check(libcFunctions.setsockopt(this.#fd, level, name, uint32(value), 4), 'setsockopt');
  }
}

/** Passes on what a part of a dump lists. True when it is the last one; throws what the kernel says about the dump. */
function takeEntries(
  message: NetlinkMessage,
  replies: readonly NetlinkReply[],
  each: (entry: NetlinkReply) => void,
): boolean {
  for (const reply of replies) {
    if (reply.type === netlinkTypes.done) return true;
    if (reply.type === netlinkTypes.error) {
      const { errno, explanation } = decodeError(reply);
      throw new NetlinkError(message.what, errno, explanation);
    }
    each(reply);
  }
  return false;
}

interface Asynchronous {
  readonly async: (...args: unknown[]) => void;
}

/** What a system call returns that is made on another thread. Throws as `check` does. */
function aside(what: string, call: Asynchronous, ...args: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: unknown, result: unknown) => {
      if (error !== null || Number(result) < 0) reject(error ?? new SystemCallError(what, lastErrno()));
      else resolve(Number(result));
    });
  });
}
