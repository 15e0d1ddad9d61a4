// A published port by IPv6 where the kernel cannot translate it: ::1, which has no twin of IPv4's route_localnet, and
// every address when the network behind has IPv4 only. What comes in is passed on to the port of 127.0.0.1 by this process,
// so it ends with it, and containers see the host instead of the client.

import { createSocket, type Socket as DatagramSocket, type RemoteInfo } from 'node:dgram';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { PortProtocol } from '../../core/generated/objects.ts';
import { bindPort, holdPort, listenOnPort, releasePort } from './port-holder.ts';

const ANY_ADDRESS = '::';
const TARGET = '127.0.0.1';
/** Of one port. Who comes beyond is not accepted before others have left. */
const CONNECTIONS_MAX = 256;
/** As long as the kernel keeps a UDP flow without answers (nf_conntrack_udp_timeout). */
const FLOW_IDLE_MS = 30_000;

/** Holds a port of all IPv6 addresses of the host and passes on what reaches it. Errors as of `holdPort`. */
export function relayPort(protocol: PortProtocol, port: number): Disposable {
  if (protocol === 'tcp') return new ConnectionRelay(port);
  if (protocol === 'udp') return new DatagramRelay(port);
  const held = holdPort(protocol, port, ANY_ADDRESS);
  return { [Symbol.dispose]: () => releasePort(held) };
}

class ConnectionRelay implements Disposable {
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  constructor(port: number) {
    const fd = listenOnPort(port, ANY_ADDRESS);
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#relay(client, port));
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.listen({ fd });
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
  }

  #relay(client: Socket, port: number): void {
    const target = createConnection({ host: TARGET, port, allowHalfOpen: true });
    for (const [one, other] of [
      [client, target],
      [target, client],
    ] as const) {
      this.#open.add(one);
      one.pipe(other);
      // Either end's failure is the other's end.
      one.on('error', () => other.destroy());
      one.on('close', () => {
        this.#open.delete(one);
        if (one.errored) other.destroy();
      });
    }
  }
}

interface Flow extends Disposable {
  send(datagram: Buffer): void;
}

class DatagramRelay implements Disposable {
  readonly #server: DatagramSocket;
  readonly #port: number;
  /** By client, the one that has been silent for longest first. */
  readonly #flows = new Map<string, Flow>();

  constructor(port: number) {
    this.#port = port;
    const fd = bindPort(port, ANY_ADDRESS);
    this.#server = createSocket('udp6', (datagram, client) => this.#relay(datagram, client));
    // What could not be delivered is lost, as datagrams are.
    this.#server.on('error', () => undefined);
    this.#server.bind({ fd });
  }

  [Symbol.dispose](): void {
    for (const flow of this.#flows.values()) flow[Symbol.dispose]();
    this.#server.close();
  }

  #relay(datagram: Buffer, client: RemoteInfo): void {
    const key = `${client.address} ${client.port}`;
    const flow = this.#flows.get(key) ?? this.#open(key, client);
    this.#flows.delete(key);
    this.#flows.set(key, flow);
    flow.send(datagram);
  }

  #open(key: string, client: RemoteInfo): Flow {
    const [silent] = this.#flows;
    if (silent !== undefined && this.#flows.size >= CONNECTIONS_MAX) silent[1][Symbol.dispose]();
    const target = createSocket('udp4');
    const end = () => {
      clearTimeout(idle);
      this.#flows.delete(key);
      target.close();
    };
    const idle = setTimeout(end, FLOW_IDLE_MS).unref();
    target.on('message', (answer) => {
      idle.refresh();
      this.#server.send(answer, client.port, client.address);
    });
    // Nobody listens: the next datagram asks again.
    target.on('error', () => undefined);
    const send = (datagram: Buffer) => {
      idle.refresh();
      target.send(datagram, this.#port, TARGET);
    };
    return { send, [Symbol.dispose]: end };
  }
}
