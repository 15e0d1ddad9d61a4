// `ping.ts ADDRESS`: sends one ICMP echo request and prints what comes back.

import koffi from 'koffi';
import { check, libcFunctions } from '../../agent/linux/libc.ts';

const AF_INET = 2;
const SOCK_DGRAM = 2;
const IPPROTO_ICMP = 1;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const ECHO_REQUEST = 8;
const ECHO_REPLY = 0;
const TIMEOUT_SECONDS = 1;

const connect = koffi.load('libc.so.6').func('int connect(int fd, const void *address, uint32_t length)');
const target = Buffer.from([
  AF_INET,
  0,
  0,
  0,
  ...process.argv[2]!.split('.').map(Number),
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
]);
const fd = check(libcFunctions.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), 'socket');
const timeout = Buffer.alloc(16);
timeout.writeUInt32LE(TIMEOUT_SECONDS);
check(libcFunctions.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length), 'setsockopt');
check(connect(fd, target, target.length), 'connect');
// The kernel fills in identifier and checksum.
const request = Buffer.from([ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 1]);
check(Number(libcFunctions.send(fd, request, request.length, 0)), 'send');
const reply = Buffer.alloc(64);
check(Number(libcFunctions.recv(fd, reply, reply.length, 0)), 'receive');
console.log(reply[0] === ECHO_REPLY ? 'echo reply' : `type ${reply[0]}`);
