// The ways on which lines leave: datagrams to a socket of this machine or over UDP, and streams with or without TLS.

import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { SwarmError } from '../../../core/errors.ts';
import type { SyslogTarget } from '../../../core/log-driver.ts';
import { check, libcFunctions } from '../../linux/libc.ts';
import type { LineTransport } from './line-queue.ts';

const AF_UNIX = 1;
const SOCK_DATAGRAM = 0o2 | 0o4000 | 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOCKET_PATH_BYTES_MAX = 107;
const CONNECT_LIMIT_MS = 5_000;

/** Datagrams to a socket file, which Node cannot. One that is full or gone is tried again by who sends. */
export function unixDatagrams(path: string): LineTransport {
  let fd: number | undefined;
  const close = () => {
    if (fd !== undefined) libcFunctions.close(fd);
    fd = undefined;
  };
  return {
    async send(message) {
      fd ??= connectDatagram(path);
      try {
        check(
          Number(libcFunctions.send(fd, message, message.length, MSG_DONTWAIT | MSG_NOSIGNAL)),
          `send to ${path}`,
        );
      } catch (error) {
        close();
        throw error;
      }
    },
    close,
  };
}

function connectDatagram(path: string): number {
  const name = Buffer.from(path);
  if (name.length > SOCKET_PATH_BYTES_MAX)
    throw new SwarmError('invalid-argument', `the path of the socket ${path} is too long`);
  const address = Buffer.alloc(2 + name.length + 1);
  address.writeUInt16LE(AF_UNIX);
  name.copy(address, 2);
  const fd = check(libcFunctions.socket(AF_UNIX, SOCK_DATAGRAM, 0), 'socket');
  try {
    check(libcFunctions.connect(fd, address, address.length), `connect to ${path}`);
    return fd;
  } catch (error) {
    libcFunctions.close(fd);
    throw error;
  }
}

export function udpDatagrams({ host, port }: Pick<SyslogTarget, 'host' | 'port'>): LineTransport {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4').unref();
  // Reported to who sends as well.
  socket.on('error', () => {});
  return {
    send: (message) =>
      new Promise((resolve, reject) =>
        socket.send(message, port, host, (error) => (error === null ? resolve() : reject(error))),
      ),
    close: () => socket.close(),
  };
}

/** One connection, made anew when it breaks. What the kernel had taken by then is lost. */
export function streamTo(target: SyslogTarget): LineTransport {
  let connection: Promise<Socket> | undefined;
  const forget = () => {
    connection = undefined;
  };
  return {
    async send(message) {
      connection ??= open(target, forget);
      const socket = await connection.catch((error) => {
        forget();
        throw error;
      });
      await new Promise<void>((resolve, reject) =>
        socket.write(message, (error) => (error ? reject(error) : resolve())),
      );
    },
    close: () => void connection?.then((socket) => socket.destroy()).catch(() => {}),
  };
}

function open(target: SyslogTarget, onEnd: () => void): Promise<Socket> {
  const { host, port, transport } = target;
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket =
    transport === 'tcp' ? connect({ host, port }) : connectTls({ host, port, ...tlsOptions(target) });
  socket.setTimeout(CONNECT_LIMIT_MS, () => socket.destroy(new Error(`${host}:${port} does not answer`)));
  socket.once(transport === 'tcp' ? 'connect' : 'secureConnect', () => {
    socket.setTimeout(0);
    socket.unref();
    resolve(socket);
  });
  // What it says is of no use; its end is.
  socket.resume();
  socket.on('error', reject);
  socket.on('close', () => {
    onEnd();
    reject(new Error(`${host}:${port} has closed the connection`));
  });
  return promise;
}

function tlsOptions({ host, caFile, certFile, keyFile, skipVerify }: SyslogTarget): object {
  return {
    servername: /^[\d.:]+$/.test(host) ? '' : host,
    rejectUnauthorized: !skipVerify,
    ...(caFile !== '' && { ca: readFileSync(caFile) }),
    ...(certFile !== '' && { cert: readFileSync(certFile), key: readFileSync(keyFile) }),
  };
}
