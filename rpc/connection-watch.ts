// The TCP connection of a channel, which gRPC does not show: Node tells of every socket that it connects. The kernel asks
// the other end's machine every second whether it is there, and so knows for how long it has been silent.

import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';

const KEEPALIVE_MS = 1_000;

interface Target {
  readonly host: string;
  readonly port: number;
}

const watches = new Set<ConnectionWatch>();
let isSubscribed = false;

export class ConnectionWatch implements Disposable {
  readonly #target: Target;
  #socket: Socket | undefined;

  constructor(target: Target) {
    this.#target = target;
    watches.add(this);
    if (!isSubscribed) subscribe('net.client.socket', hear);
    isSubscribed = true;
  }

  /** The file descriptor of the connection, while there is one. */
  get descriptor(): number | undefined {
    if (this.#socket === undefined || this.#socket.destroyed) return undefined;
    return (this.#socket as unknown as { readonly _handle?: { readonly fd: number } })._handle?.fd;
  }

  /** The first one that leads there, until it is closed. */
  consider(socket: Socket): void {
    const { host, port } = this.#target;
    const leadsThere = socket.remoteAddress === host && socket.remotePort === port;
    if (!leadsThere || this.descriptor !== undefined) return;
    socket.setKeepAlive(true, KEEPALIVE_MS);
    this.#socket = socket;
  }

  [Symbol.dispose](): void {
    watches.delete(this);
  }
}

function hear(message: unknown): void {
  const { socket } = message as { readonly socket: Socket };
  socket.once('connect', () => {
    for (const watch of watches) watch.consider(socket);
  });
}
