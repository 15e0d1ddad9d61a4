// What the kernel knows of a TCP connection.

import { check, libcFunctions } from './libc.ts';

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** As much of struct tcp_info as is read here. */
const INFO_BYTES = 60;
const LAST_DATA_OFFSET = 52;
const LAST_ACKNOWLEDGEMENT_OFFSET = 56;

/** Milliseconds since the other end's machine was last heard of. Throws when the descriptor is no TCP socket. */
export function silenceMs(descriptor: number): number {
  const info = Buffer.alloc(INFO_BYTES);
  check(libcFunctions.getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, info, [info.length]), 'getsockopt');
  return Math.min(info.readUInt32LE(LAST_DATA_OFFSET), info.readUInt32LE(LAST_ACKNOWLEDGEMENT_OFFSET));
}
