// Everything that the log does with a file system, so that a simulator can own it: one flat directory of files. A call
// that rejects leaves the file as it was or half done; nothing is durable but what is said to be.

export interface Disk {
  /** Names of all files. */
  list(): Promise<string[]>;
  /** A whole, small file. */
  read(name: string): Promise<Buffer>;
  open(name: string, options?: OpenOptions): Promise<DiskFile>;
  /** Replaces `to`. Durable after `syncDirectory`, as are creating and unlinking. */
  rename(from: string, to: string): Promise<void>;
  /** Open files of that name stay readable. */
  unlink(name: string): Promise<void>;
  syncDirectory(): Promise<void>;
  /** Room left for us; Infinity where nobody knows. */
  freeBytes(): Promise<number>;
}

export interface OpenOptions {
  /** Makes it, empty, when there is none. */
  readonly create?: boolean;
  /** A write that resolves is durable, and so is the length that it gave the file. */
  readonly sync?: boolean;
}

export interface DiskFile {
  /** All of the bytes, or it rejects. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Fewer bytes than asked for at the end of the file. */
  read(offset: number, length: number): Promise<Buffer>;
  truncate(length: number): Promise<void>;
  /** What was written before is durable when it resolves. */
  sync(): Promise<void>;
  size(): Promise<number>;
  /** May be called again. */
  close(): Promise<void>;
}

/** True of failures that only say that there is no room. */
export function isNoSpace(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOSPC' || code === 'EDQUOT';
}
