// A network's name server: one UDP and one TCP socket on its gateway's address, opened inside its namespace and served
// by this process. Who asks is known by the address; what is not known here is asked for outside.

import { createSocket, type Socket } from 'node:dgram';
import { type Socket as Connection, createServer, type Server } from 'node:net';
import type { Logger } from '../../../rpc/logger.ts';
import { check, libcFunctions } from '../../linux/libc.ts';
import { withinNamespace } from '../../linux/namespace.ts';
import { uint32 } from '../../linux/netlink.ts';
import { ipv4SocketAddress, openIpv4Socket } from '../../linux/sockets.ts';
import { bytesOf } from '../ip-bytes.ts';
import type { Forwarder } from './dns-forwarder.ts';
import { FrameReader, frame } from './dns-frame.ts';
import { answerQuery, type Client, failQuery } from './dns-zone.ts';
import { DNS_PORT } from './overlay-rulesets.ts';

/** As Node counts. */
const IPV4_FAMILY = 4;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVBUFFORCE = 33;
const BACKLOG = 128;
/** Room for the questions that come while the process does something else. */
const RECEIVE_BUFFER_BYTES = 1 << 20;
const IDLE_TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 256;

export interface DnsServerOptions {
  readonly namespacePath: string;
  /** Of IPv4. */
  readonly address: string;
  /** undefined for an address that no container has: it gets no answer. */
  readonly clientAt: (address: string) => Client | undefined;
  readonly forwarder: Forwarder;
  readonly logger: Logger;
}

export class DnsServer implements Disposable {
  readonly #options: DnsServerOptions;
  readonly #datagrams: Socket;
  readonly #connections: Server;
  readonly #open = new Set<Connection>();

  constructor(options: DnsServerOptions) {
    this.#options = options;
    // Answers go to addresses: there is no name to look up.
    this.#datagrams = createSocket({
      type: 'udp4',
      lookup: (host, _, done) => done(null, host, IPV4_FAMILY),
    });
    this.#datagrams.on('message', (query, { address, port }) => this.#onDatagram(query, address, port));
    this.#datagrams.on('error', (error) => this.#onError(error));
    this.#connections = createServer((connection) => this.#onConnection(connection));
    this.#connections.maxConnections = CONNECTIONS_MAX;
    this.#connections.on('error', (error) => this.#onError(error));
  }

  get address(): string {
    return this.#options.address;
  }

  async listen(): Promise<void> {
    const { namespacePath, address } = this.#options;
    const [datagramFd, streamFd] = withinNamespace(namespacePath, () => openSockets(bytesOf(address)));
    const bound = Promise.withResolvers<void>();
    const listening = Promise.withResolvers<void>();
    this.#datagrams.bind({ fd: datagramFd }, bound.resolve);
    this.#connections.listen({ fd: streamFd }, listening.resolve);
    await Promise.all([bound.promise, listening.promise]);
  }

  [Symbol.dispose](): void {
    this.#datagrams.close();
    this.#connections.close();
    for (const connection of this.#open) connection.destroy();
  }

  #onDatagram(query: Buffer, address: string, port: number): void {
    const answer = this.#answer(query, address, 'udp');
    if (answer instanceof Promise) {
      // The container's question may come back when its network is gone.
      void answer.then((bytes) => {
        if (bytes !== undefined) this.#send(bytes, port, address);
      });
    } else if (answer !== undefined) {
      this.#send(answer, port, address);
    }
  }

  #send(answer: Buffer, port: number, address: string): void {
    try {
      this.#datagrams.send(answer, port, address, (error) => {
        if (error !== null) this.#onError(error);
      });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_SOCKET_DGRAM_NOT_RUNNING') throw error;
    }
  }

  #onConnection(connection: Connection): void {
    const reader = new FrameReader();
    this.#open.add(connection);
    connection.setTimeout(IDLE_TIMEOUT_MS, () => connection.destroy());
    connection.on('close', () => this.#open.delete(connection));
    connection.on('error', () => connection.destroy());
    connection.on('data', (data) => {
      for (const query of reader.push(data)) {
        void Promise.resolve(this.#answer(query, connection.remoteAddress ?? '', 'tcp')).then((answer) => {
          if (answer !== undefined && connection.writable) connection.write(frame(answer));
        });
      }
    });
  }

  #answer(
    query: Buffer,
    address: string,
    transport: 'udp' | 'tcp',
  ): Buffer | undefined | Promise<Buffer | undefined> {
    const client = this.#options.clientAt(address);
    if (client === undefined) return undefined;
    const answer = answerQuery(query, client, transport);
    if (answer !== 'forward') return answer;
    const { forwarder } = this.#options;
    return forwarder.ask(query, transport, client.nameServers).then((found) => found ?? failQuery(query));
  }

  #onError(error: Error): void {
    this.#options.logger.warn({ error: error.message }, 'the name server of an overlay network has trouble');
  }
}

/** In the namespace of the calling thread. */
function openSockets(address: Buffer): [datagram: number, stream: number] {
  const target = ipv4SocketAddress(address, DNS_PORT);
  const datagram = openIpv4Socket('datagram');
  try {
    setOption(datagram, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES);
    check(libcFunctions.bind(datagram, target, target.length), 'bind the name server');
    const stream = openIpv4Socket('stream');
    try {
      setOption(stream, SO_REUSEADDR, 1);
      check(libcFunctions.bind(stream, target, target.length), 'bind the name server');
      check(libcFunctions.listen(stream, BACKLOG), 'listen');
      return [datagram, stream];
    } catch (error) {
      libcFunctions.close(stream);
      throw error;
    }
  } catch (error) {
    libcFunctions.close(datagram);
    throw error;
  }
}

function setOption(fd: number, name: number, value: number): void {
  check(libcFunctions.setsockopt(fd, SOL_SOCKET, name, uint32(value), 4), 'setsockopt');
}
