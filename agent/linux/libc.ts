// System calls that Node does not offer, through koffi. They are made synchronously: a namespace belongs to the thread that
// entered it, and koffi's asynchronous calls run on another one. What is sent on a socket knows its own namespace.

import { getSystemErrorMap, getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { SwarmError } from '../../core/errors.ts';

const libc = koffi.load('libc.so.6');

export const libcFunctions = {
  setns: libc.func('int setns(int fd, int type)'),
  unshare: libc.func('int unshare(int flags)'),
  mount: libc.func(
    'int mount(const char *source, const char *target, const char *type, ulong flags, const char *data)',
  ),
  umount2: libc.func('int umount2(const char *target, int flags)'),
  fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, const void *address, uint32_t length)'),
  connect: libc.func('int connect(int fd, const void *address, uint32_t length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  shutdown: libc.func('int shutdown(int fd, int how)'),
  getsockname: libc.func('int getsockname(int fd, _Out_ void *address, _Inout_ uint32_t *length)'),
  getsockopt: libc.func(
    'int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)',
  ),
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)'),
  send: libc.func('long send(int fd, const void *buffer, size_t length, int flags)'),
  recv: libc.func('long recv(int fd, void *buffer, size_t length, int flags)'),
  close: libc.func('int close(int fd)'),
  madvise: libc.func('int madvise(uintptr_t address, size_t length, int advice)'),
  openat2: libc.func(
    'long syscall(long number, int directory, const char *path, const void *how, size_t size)',
  ),
  openTree: libc.func('long syscall(long number, int directory, const char *path, unsigned int flags)'),
  mountSetattr: libc.func(
    'long syscall(long number, int directory, const char *path, unsigned int flags, const void *attributes, size_t size)',
  ),
  moveMount: libc.func(
    'long syscall(long number, int directory, const char *path, int into, const char *target, unsigned int flags)',
  ),
  pidfdOpen: libc.func('long syscall(long number, int pid, unsigned int flags)'),
  processMadvise: libc.func(
    'long syscall(long number, int pidfd, const void *ranges, size_t count, int advice, unsigned int flags)',
  ),
  prctl: libc.func('int prctl(int option, ulong value, ulong third, ulong fourth, ulong fifth)'),
  mkfifo: libc.func('int mkfifo(const char *path, uint32_t mode)'),
};

/** A failed system call. `errno` is positive; the code lets callers tell what they expect (EEXIST) from the rest. */
export class SystemCallError extends SwarmError {
  readonly errno: number;
  readonly errnoName: string;

  constructor(call: string, errno: number) {
    const name = getSystemErrorMap().has(-errno) ? getSystemErrorName(-errno) : `errno ${errno}`;
    super('internal', `${call}: ${name}`);
    this.errno = errno;
    this.errnoName = name;
  }
}

/** Of the call just made, when it failed: for failures that are nothing special, where an error would cost more than the call. */
export function lastErrno(): number {
  return koffi.errno();
}

/** The result, unless it is negative: then throws a SystemCallError with the errno of the call just made. */
export function check(result: number, call: string): number {
  if (result < 0) throw new SystemCallError(call, koffi.errno());
  return result;
}
