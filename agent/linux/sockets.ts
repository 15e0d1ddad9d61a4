// Sockets of the calling thread's namespace, for whoever uses them elsewhere: Node makes its own too late for that.

import { check, libcFunctions } from './libc.ts';

const AF_INET = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOCKET_ADDRESS_BYTES = 16;
const types = { stream: 1, datagram: 2, raw: 3 } as const;

/** An IPv4 socket that does not block. The caller closes it. */
export function openIpv4Socket(type: keyof typeof types, protocolNumber = 0): number {
  const flags = types[type] | SOCK_NONBLOCK | SOCK_CLOEXEC;
  return check(libcFunctions.socket(AF_INET, flags, protocolNumber), 'socket');
}

/** What bind and connect take. */
export function ipv4SocketAddress(address: Buffer, port: number): Buffer {
  const target = Buffer.alloc(SOCKET_ADDRESS_BYTES);
  target.writeUInt16LE(AF_INET);
  target.writeUInt16BE(port, 2);
  address.copy(target, 4);
  return target;
}
