// A program that loads a path with TCP connections, with as little of its own as can be: blocking system calls.
// `serve PORT` gives each connection one byte and closes it; `sink PORT` reads what comes. Without arguments it answers
// calls: makes connections, or sends as much as it can. Processor time is that of the thread, in nanoseconds.

import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { check, libcFunctions } from '../../agent/linux/libc.ts';
import { answerCalls } from './answer-calls.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_LINGER = 13;
const SO_RCVTIMEO = 20;
/** One second, as a `struct timeval`. */
const ACCEPT_TIMEOUT = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const BACKLOG = 128;
const CHUNK_BYTES = 128 << 10;

const libc = koffi.load('libc.so.6');
const connect = libc.func('int connect(int fd, const void *address, uint32_t length)');
const accept = libc.func('int accept(int fd, void *address, void *length)');

interface Target {
  readonly host: string;
  readonly port: number;
}

const [mode, port = ''] = process.argv.slice(2);
if (mode === undefined) await answerCalls({ connectOften, sendFor });
else serve(mode, Number(port));

function serve(how: string, port: number): never {
  const listener = openSocket();
  check(libcFunctions.setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, Buffer.from([1, 0, 0, 0]), 4), 'reuse');
  const address = socketAddress({ host: '0.0.0.0', port });
  check(libcFunctions.bind(listener, address, address.length), 'bind');
  check(libcFunctions.listen(listener, BACKLOG), 'listen');
  process.stdout.write('ready\n');
  const buffer = Buffer.alloc(CHUNK_BYTES);
  const parent = process.ppid;
  libcFunctions.setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, ACCEPT_TIMEOUT, ACCEPT_TIMEOUT.length);
  // Nothing else would tell it that who started it is gone.
  while (process.ppid === parent) {
    const fd = accept(listener, null, null);
    if (fd < 0) continue;
    if (how === 'serve') libcFunctions.send(fd, buffer, 1, 0);
    else while (Number(libcFunctions.recv(fd, buffer, buffer.length, 0)) > 0);
    libcFunctions.close(fd);
  }
  process.exit();
}

/** One after another; the processor time of all. */
async function connectOften({ count, ...target }: Target & { count: number }): Promise<number> {
  const buffer = Buffer.alloc(1);
  const address = socketAddress(target);
  const before = cpuNanos();
  for (let index = 0; index < count; index++) {
    const fd = openSocket();
    check(connect(fd, address, address.length), 'connect');
    check(Number(libcFunctions.recv(fd, buffer, 1, 0)), 'receive');
    // Closed by a reset: the port is free again, here and in connection tracking.
    libcFunctions.setsockopt(fd, SOL_SOCKET, SO_LINGER, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), 8);
    libcFunctions.close(fd);
  }
  return cpuNanos() - before;
}

/** Bytes in a second. */
async function sendFor({ seconds, ...target }: Target & { seconds: number }): Promise<number> {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  const address = socketAddress(target);
  const fd = openSocket();
  check(connect(fd, address, address.length), 'connect');
  const started = performance.now();
  let bytes = 0;
  while (performance.now() - started < seconds * 1000) {
    bytes += check(Number(libcFunctions.send(fd, buffer, buffer.length, 0)), 'send');
  }
  const elapsedSeconds = (performance.now() - started) / 1000;
  libcFunctions.close(fd);
  return bytes / elapsedSeconds;
}

function cpuNanos(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]);
}

function openSocket(): number {
  return check(libcFunctions.socket(AF_INET, SOCK_STREAM, 0), 'open a socket');
}

function socketAddress({ host, port }: Target): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF_INET);
  bytes.writeUInt16BE(port, 2);
  bytes.set(host.split('.').map(Number), 4);
  return bytes;
}
