// Asking, from inside a container's network, what its program would ask: a name, an echo, a connection. Sockets belong to the
// namespace in which they are made, whoever uses them.

import { setTimeout as delay } from 'node:timers/promises';
import { check, lastErrno, libcFunctions } from '../linux/libc.ts';
import { withinNamespace } from '../linux/namespace.ts';
import { ipv4SocketAddress, openIpv4Socket } from '../linux/sockets.ts';
import { bytesOf } from './ip-bytes.ts';
import { DNS_PORT, RESOLVER_ADDRESS } from './overlay/overlay-rulesets.ts';

const IPPROTO_ICMP = 1;
const ANSWER_BYTES_MAX = 1500;
const LIMIT_MS = 1_000;
const POLL_MS = 2;
const EAGAIN = 11;
const EINPROGRESS = 115;
const EALREADY = 114;
const EISCONN = 106;

/** undefined: there was no answer in time. */
export type Milliseconds = number | undefined;

/** IPv4 addresses of a name, as the container's resolver says; undefined when it does not answer in time. */
export async function resolveWithin(namespacePath: string, name: string): Promise<string[] | undefined> {
  using socket = openSocket(namespacePath, 'datagram');
  const id = Math.floor(Math.random() * 65_536);
  socket.connect(RESOLVER_ADDRESS.join('.'), DNS_PORT);
  socket.send(nameQuestion(id, name));
  const answer = await socket.receive((bytes) => bytes.length > 12 && bytes.readUInt16BE(0) === id);
  return answer && addressesIn(answer.bytes);
}

/** How long an ICMP echo takes. */
export async function pingWithin(namespacePath: string, address: string): Promise<Milliseconds> {
  using socket = openSocket(namespacePath, 'raw', IPPROTO_ICMP);
  const id = Math.floor(Math.random() * 65_536);
  socket.connect(address, 0);
  socket.send(echoRequest(id));
  const isReply = (bytes: Buffer) => {
    const icmp = bytes.subarray(((bytes[0] ?? 0) & 15) * 4);
    return icmp.length >= 8 && icmp[0] === 0 && icmp.readUInt16BE(4) === id;
  };
  return (await socket.receive(isReply))?.tookMs;
}

/** How long a TCP connection takes; an error text when it is refused or not answered. */
export async function connectWithin(
  namespacePath: string,
  address: string,
  port: number,
): Promise<{ readonly tookMs: number } | { readonly error: string }> {
  using socket = openSocket(namespacePath, 'stream');
  const startedMs = performance.now();
  while (performance.now() - startedMs < LIMIT_MS) {
    const outcome = socket.connect(address, port);
    if (outcome === 'done') return { tookMs: performance.now() - startedMs };
    if (outcome !== 'under way') return { error: outcome };
    await delay(POLL_MS);
  }
  return { error: `no answer within ${LIMIT_MS} ms` };
}

class ProbeSocket implements Disposable {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** To be repeated while it is under way; any other text says why it fails. */
  connect(address: string, port: number): 'done' | 'under way' | string {
    const target = ipv4SocketAddress(bytesOf(address), port);
    if (libcFunctions.connect(this.#fd, target, target.length) === 0) return 'done';
    const errno = lastErrno();
    if (errno === EISCONN) return 'done';
    if (errno === EINPROGRESS || errno === EALREADY) return 'under way';
    return reasons[errno] ?? `error ${errno}`;
  }

  send(bytes: Buffer): void {
    check(libcFunctions.send(this.#fd, bytes, bytes.length, 0), 'send a probe');
  }

  /** The first answer that is meant. */
  async receive(
    isMeant: (bytes: Buffer) => boolean,
  ): Promise<{ readonly bytes: Buffer; readonly tookMs: number } | undefined> {
    const startedMs = performance.now();
    const buffer = Buffer.alloc(ANSWER_BYTES_MAX);
    while (performance.now() - startedMs < LIMIT_MS) {
      const length = libcFunctions.recv(this.#fd, buffer, buffer.length, 0);
      if (length > 0 && isMeant(buffer.subarray(0, length)))
        return { bytes: buffer.subarray(0, length), tookMs: performance.now() - startedMs };
      // An error that came back instead of an answer: nobody will answer.
      if (length < 0 && lastErrno() !== EAGAIN) return undefined;
      if (length <= 0) await delay(POLL_MS);
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    libcFunctions.close(this.#fd);
  }
}

const reasons: Readonly<Record<number, string>> = {
  101: 'network is unreachable',
  104: 'connection reset',
  110: 'timed out',
  111: 'connection refused',
  113: 'no route to host',
};

function openSocket(namespacePath: string, ...socket: Parameters<typeof openIpv4Socket>): ProbeSocket {
  return new ProbeSocket(withinNamespace(namespacePath, () => openIpv4Socket(...socket)));
}

function nameQuestion(id: number, name: string): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(id, 0);
  header[2] = 1;
  header[5] = 1;
  const labels = name
    .split('.')
    .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]));
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, 1, 0, 1])]);
}

/** A records of an answer whose names are compressed, as our own server's are. */
function addressesIn(answer: Buffer): string[] {
  let at = 12;
  const skipName = () => {
    while (at < answer.length) {
      const length = answer[at] ?? 0;
      if (length >= 0xc0) {
        at += 2;
        return;
      }
      at += length + 1;
      if (length === 0) return;
    }
  };
  skipName();
  at += 4;
  const addresses: string[] = [];
  for (let count = answer.readUInt16BE(6); count > 0 && at + 10 <= answer.length; count--) {
    skipName();
    const [type, length] = [answer.readUInt16BE(at), answer.readUInt16BE(at + 8)];
    if (type === 1 && length === 4) addresses.push(answer.subarray(at + 10, at + 14).join('.'));
    at += 10 + length;
  }
  return addresses;
}

function echoRequest(id: number): Buffer {
  const message = Buffer.alloc(8);
  message[0] = 8;
  message.writeUInt16BE(id, 4);
  let sum = 0;
  for (let at = 0; at < message.length; at += 2) sum += message.readUInt16BE(at);
  message.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 2);
  return message;
}
