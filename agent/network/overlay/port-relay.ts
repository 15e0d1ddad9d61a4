// A published TCP port by IPv6 where the kernel cannot translate it: ::1, which has no twin of IPv4's route_localnet, and
// every address when the ingress network has IPv4 only. Connections are passed on to the port of 127.0.0.1 by this process,
// so they end with it, and containers see the host instead of the client.

import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { listenOnPort } from '../port-holder.ts';

/** Of one port. Who comes beyond is not accepted before others have left. */
const CONNECTIONS_MAX = 256;

export class PortRelay implements Disposable {
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  /** Holds the port of all IPv6 addresses of the host. `failed-precondition` when somebody has it. */
  constructor(port: number) {
    const fd = listenOnPort(port, '::');
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#relay(client, port));
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.listen({ fd });
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
  }

  #relay(client: Socket, port: number): void {
    const target = createConnection({ host: '127.0.0.1', port, allowHalfOpen: true });
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
