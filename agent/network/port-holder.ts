// Published ports are held by a socket of this process: DNAT would silently take a port away from a host process, and
// a host process could start on a port that never sees a packet. The sockets serve nothing.

import { SwarmError } from '../../core/errors.ts';
import type { PortProtocol } from '../../core/generated/objects.ts';
import { type IpFamily, ipFamilies } from '../linux/ip-family.ts';
import { check, libcFunctions, SystemCallError } from '../linux/libc.ts';
import { uint32 } from '../linux/netlink.ts';
import { bytesOf, familyOf } from './ip-bytes.ts';

export const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const satisfies Record<PortProtocol, number>;

const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVBUF = 8;
const SHUT_RD = 0;
const socketAddressBytes: Readonly<Record<IpFamily, number>> = { ipv4: 16, ipv6: 28 };
const addressOffsets: Readonly<Record<IpFamily, number>> = { ipv4: 4, ipv6: 8 };
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const PORT_OFFSET = 2;
const BACKLOG = 128;
const EADDRINUSE = 98;
const EADDRNOTAVAIL = 99;
const ESOCKTNOSUPPORT = 94;
const EPROTONOSUPPORT = 93;

export interface HeldPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly fd: number;
}

/**
 * Holds a port of one address, or of all of a family (0.0.0.0, which is meant when absent, or ::), of the namespace of the calling thread; 0 takes a free one of the ephemeral
 * range. `failed-precondition` when somebody has it, or nobody has the address.
 */
export function holdPort(protocol: PortProtocol, port: number, address = '0.0.0.0'): HeldPort {
  const fd = openSocket(protocol, familyOf(address));
  try {
    holdWith(fd, protocol, socketAddress(port, address));
    return { protocol, port: port === 0 ? boundPort(fd, familyOf(address)) : port, fd };
  } catch (error) {
    libcFunctions.close(fd);
    throw refusal(protocol, port, address, error);
  }
}

function refusal(protocol: PortProtocol, port: number, address: string, error: unknown): unknown {
  if (!(error instanceof SystemCallError)) return error;
  if (error.errno === EADDRINUSE) return portInUse(protocol, port, error);
  if (error.errno !== EADDRNOTAVAIL) return error;
  return new SwarmError('failed-precondition', `no interface of this node has ${address}`, {
    hint: 'ip address shows those that there are.',
    cause: error,
  });
}

/** A socket that listens to a TCP port of an address, with its file descriptor. Errors as of `holdPort`. */
export function listenOnPort(port: number, address: string): number {
  const fd = openSocket('tcp', familyOf(address));
  try {
    setOption(fd, SO_REUSEADDR, 1);
    const target = socketAddress(port, address);
    check(libcFunctions.bind(fd, target, target.length), 'bind');
    check(libcFunctions.listen(fd, BACKLOG), 'listen');
    return fd;
  } catch (error) {
    libcFunctions.close(fd);
    throw refusal('tcp', port, address, error);
  }
}

/** A socket that is bound to a UDP port of an address, with its file descriptor. Errors as of `holdPort`. */
export function bindPort(port: number, address: string): number {
  const fd = openSocket('udp', familyOf(address));
  try {
    const target = socketAddress(port, address);
    check(libcFunctions.bind(fd, target, target.length), 'bind');
    return fd;
  } catch (error) {
    libcFunctions.close(fd);
    throw refusal('udp', port, address, error);
  }
}

export function portInUse(protocol: PortProtocol, port: number, cause?: unknown): SwarmError {
  return new SwarmError('failed-precondition', `port ${port}/${protocol} is already in use on this node`, {
    hint: `Publish another port, or stop the process that uses port ${port} (ss -lnp shows it).`,
    cause,
  });
}

export function releasePort(held: HeldPort): void {
  libcFunctions.close(held.fd);
}

function openSocket(protocol: PortProtocol, family: IpFamily): number {
  const type = protocol === 'udp' ? SOCK_DGRAM : SOCK_STREAM;
  const fd = libcFunctions.socket(ipFamilies[family].number, type | SOCK_CLOEXEC, protocolNumbers[protocol]);
  try {
    check(fd, `open a ${protocol} socket`);
    // The other family's port is held on its own.
    if (family === 'ipv6') setOption(fd, IPV6_V6ONLY, 1, IPPROTO_IPV6);
    return fd;
  } catch (error) {
    const isUnsupported =
      error instanceof SystemCallError && [EPROTONOSUPPORT, ESOCKTNOSUPPORT].includes(error.errno);
    if (!isUnsupported) throw error;
    throw new SwarmError('failed-precondition', `the kernel of this node has no ${protocol}`, {
      cause: error,
    });
  }
}

function socketAddress(port: number, address: string): Buffer {
  const family = familyOf(address);
  const bytes = Buffer.alloc(socketAddressBytes[family]);
  bytes.writeUInt16LE(ipFamilies[family].number);
  bytes.writeUInt16BE(port, PORT_OFFSET);
  bytesOf(address).copy(bytes, addressOffsets[family]);
  return bytes;
}

function holdWith(fd: number, protocol: PortProtocol, address: Buffer): void {
  if (protocol === 'udp') {
    // What comes after a drain is never read: the smallest buffer that the kernel allows.
    setOption(fd, SO_RCVBUF, 0);
    check(libcFunctions.bind(fd, address, address.length), 'bind');
    return;
  }
  if (address.readUInt16BE(PORT_OFFSET) === 0) {
    // The kernel would take a port of its own choice back when the socket stops listening.
    check(libcFunctions.bind(fd, address, address.length), 'bind');
    return;
  }
  // Connections that a former user of the port has closed do not count as use, but with the option set bind would also
  // overlook a socket that does not listen yet; listen finds that one. Then the socket stops listening, so that
  // connections are refused while nothing is published, and without the option nobody else gets the port.
  setOption(fd, SO_REUSEADDR, 1);
  check(libcFunctions.bind(fd, address, address.length), 'bind');
  check(libcFunctions.listen(fd, 1), 'listen');
  check(libcFunctions.shutdown(fd, SHUT_RD), 'stop listening');
  setOption(fd, SO_REUSEADDR, 0);
}

function boundPort(fd: number, family: IpFamily): number {
  const address = Buffer.alloc(socketAddressBytes[family]);
  check(libcFunctions.getsockname(fd, address, [address.length]), 'getsockname');
  return address.readUInt16BE(PORT_OFFSET);
}

function setOption(fd: number, name: number, value: number, level = SOL_SOCKET): void {
  check(libcFunctions.setsockopt(fd, level, name, uint32(value), 4), 'setsockopt');
}
