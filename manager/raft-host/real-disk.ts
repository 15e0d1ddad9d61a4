// The log's directory on a real file system. Writes that must be durable are O_DSYNC positional writes: one system call
// instead of write and fdatasync. Callbacks instead of FileHandle: a promise layer less in the path of every commit.

import { close, constants, fdatasync, fstat, ftruncate, open, read, write } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rename, stat, statfs, unlink } from 'node:fs/promises';
import path from 'node:path';
import { SwarmError } from '../../core/errors.ts';
import type { Disk, DiskFile, OpenOptions } from './disk.ts';

const DIRECTORY_MODE = 0o700;
const FILE_MODE = 0o600;

export class RealDisk implements Disk {
  readonly #directory: string;
  readonly #access: number;

  private constructor(directory: string, access: number) {
    this.#directory = directory;
    this.#access = access;
  }

  /** Makes the directory when it is missing, and nobody else's in any case. */
  static async open(directory: string): Promise<RealDisk> {
    await mkdir(directory, { recursive: true, mode: DIRECTORY_MODE });
    await chmod(directory, DIRECTORY_MODE);
    return new RealDisk(directory, constants.O_RDWR);
  }

  /** One that is only looked at: nothing is made or changed, also not by mistake. */
  static async reading(directory: string): Promise<RealDisk> {
    const found = await stat(directory).catch(() => undefined);
    if (found?.isDirectory() !== true) throw new SwarmError('not-found', `${directory} is no directory`);
    return new RealDisk(directory, constants.O_RDONLY);
  }

  list(): Promise<string[]> {
    return readdir(this.#directory);
  }

  read(name: string): Promise<Buffer> {
    return readFile(this.#path(name));
  }

  async open(name: string, { create = false, sync = false }: OpenOptions = {}): Promise<DiskFile> {
    const flags = this.#access | (create ? constants.O_CREAT : 0);
    if (!sync) return new RealFile(await openFile(this.#path(name), flags), false);
    try {
      return new RealFile(await openFile(this.#path(name), flags | constants.O_DSYNC), false);
    } catch (error) {
      // Some network and FUSE file systems refuse the flag.
      if (!(error instanceof Error && 'code' in error && error.code === 'EINVAL')) throw error;
      return new RealFile(await openFile(this.#path(name), flags), true);
    }
  }

  rename(from: string, to: string): Promise<void> {
    return rename(this.#path(from), this.#path(to));
  }

  unlink(name: string): Promise<void> {
    return unlink(this.#path(name));
  }

  async syncDirectory(): Promise<void> {
    const file = new RealFile(await openFile(this.#directory, constants.O_RDONLY), false);
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#directory);
    return bavail * bsize;
  }

  #path(name: string): string {
    return path.join(this.#directory, name);
  }
}

class RealFile implements DiskFile {
  readonly #descriptor: number;
  readonly #syncsWrites: boolean;
  #isClosed = false;

  constructor(descriptor: number, syncsWrites: boolean) {
    this.#descriptor = descriptor;
    this.#syncsWrites = syncsWrites;
  }

  write(bytes: Uint8Array, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const writeFrom = (done: number) => {
        write(this.#descriptor, bytes, done, bytes.length - done, offset + done, (error, written) => {
          if (error) reject(error);
          else if (done + written < bytes.length) writeFrom(done + written);
          else if (this.#syncsWrites) this.sync().then(resolve, reject);
          else resolve();
        });
      };
      writeFrom(0);
    });
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const count = await this.#readOnce(bytes, done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return bytes.subarray(0, done);
  }

  truncate(length: number): Promise<void> {
    return settle((callback) => ftruncate(this.#descriptor, length, callback));
  }

  sync(): Promise<void> {
    return settle((callback) => fdatasync(this.#descriptor, callback));
  }

  size(): Promise<number> {
    return new Promise((resolve, reject) => {
      fstat(this.#descriptor, (error, { size } = { size: 0 } as never) =>
        error ? reject(error) : resolve(size),
      );
    });
  }

  close(): Promise<void> {
    // The number may be another file's by now.
    if (this.#isClosed) return Promise.resolve();
    this.#isClosed = true;
    return settle((callback) => close(this.#descriptor, callback));
  }

  #readOnce(bytes: Buffer, start: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.#descriptor, bytes, start, bytes.length - start, position, (error, count) =>
        error ? reject(error) : resolve(count),
      );
    });
  }
}

function openFile(file: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    open(file, flags, FILE_MODE, (error, descriptor) => (error ? reject(error) : resolve(descriptor)));
  });
}

function settle(call: (callback: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}
