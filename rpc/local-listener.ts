// A socket of this machine. The gRPC server takes its connections from here, so that the kernel can be asked who is at their
// other end.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createServer, type Server, type Socket } from 'node:net';
import { messageOf, SwarmError } from '../core/errors.ts';

// unix(7), socket(7): struct ucred has pid, uid and gid, 32 bits each.
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const CREDENTIALS_BYTES = 12;
const UID_OFFSET = 4;

type GetSocketOption = (fd: number, level: number, name: number, value: Buffer, length: Buffer) => number;

let getSocketOption: GetSocketOption | undefined;

export class LocalListener {
  readonly #server: Server;
  readonly #connections = new Map<string, { readonly socket: Socket; readonly fd: number }>();

  private constructor(path: string, onConnection: (socket: Socket) => void) {
    let serial = 0;
    this.#server = createServer((socket) => {
      const peer = `${path}#${++serial}`;
      // What the gRPC server calls the other end.
      Object.defineProperty(socket, 'remoteAddress', { value: peer });
      this.#connections.set(peer, { socket, fd: fdOf(socket) });
      socket.once('close', () => this.#connections.delete(peer));
      // A connection that breaks shows in its calls.
      socket.on('error', () => {});
      onConnection(socket);
    });
  }

  /** Throws `unavailable` when the path cannot be had. */
  static async listen(path: string, onConnection: (socket: Socket) => void): Promise<LocalListener> {
    const listener = new LocalListener(path, onConnection);
    listener.#server.listen(path);
    try {
      await once(listener.#server, 'listening');
    } catch (error) {
      throw new SwarmError('unavailable', `cannot listen on ${path}: ${messageOf(error)}`, { cause: error });
    }
    return listener;
  }

  has(peer: string): boolean {
    return this.#connections.has(peer);
  }

  /** The user that the process at the other end was started by; undefined when it cannot be told. */
  userOf(peer: string): number | undefined {
    const fd = this.#connections.get(peer)?.fd ?? -1;
    return fd < 0 ? undefined : peerUser(fd);
  }

  close(): void {
    this.#server.close();
    for (const { socket } of this.#connections.values()) socket.destroy();
  }
}

/** -1 when this Node does not tell. */
function fdOf(socket: Socket): number {
  return (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1;
}

function peerUser(fd: number): number | undefined {
  getSocketOption ??= loadGetSocketOption();
  const credentials = Buffer.alloc(CREDENTIALS_BYTES);
  const length = Buffer.alloc(4);
  length.writeInt32LE(CREDENTIALS_BYTES);
  if (getSocketOption(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) return undefined;
  return credentials.readUInt32LE(UID_OFFSET);
}

/** Only when somebody has to be named: few processes need it, and it takes memory. */
function loadGetSocketOption(): GetSocketOption {
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  return koffi
    .load('libc.so.6')
    .func('int getsockopt(int fd, int level, int name, void *value, void *length)') as GetSocketOption;
}
