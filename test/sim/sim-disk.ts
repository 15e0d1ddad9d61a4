// A disk in memory that does what disks do to those who trust them. A write is in the page cache at once and durable
// when it was synced; what a crash leaves of the rest is drawn from one seeded source, sector by sector. Creating,
// renaming and deleting may be undone until the directory is synced.

import { assert, defined } from '../../core/assert.ts';
import type { Disk, DiskFile, OpenOptions } from '../../manager/raft-host/disk.ts';
import type { Chance } from '../support/faults.ts';

const SECTOR_BYTES = 512;
const PAGE_BYTES = 4096;

export type DiskCallKind =
  | 'list'
  | 'read'
  | 'open'
  | 'rename'
  | 'unlink'
  | 'sync-directory'
  | 'free'
  | 'read-at'
  | 'write-at'
  | 'truncate'
  | 'sync'
  | 'size'
  | 'close';

export interface DiskCall {
  readonly kind: DiskCallKind;
  readonly name: string;
  /** Of all calls, from 1. */
  readonly number: number;
}

export interface SimDiskOptions {
  readonly chance: Chance;
  /** When a call completes; by default as soon as what runs now has ended. A simulator puts virtual time here. */
  readonly schedule?: (complete: () => void, call: DiskCall) => void;
}

/** - `process`: the page cache survives, calls under way are done in part. - `power`: it does not. */
export type CrashKind = 'process' | 'power';

type NameChange =
  | { readonly kind: 'link'; readonly name: string; readonly inode: Inode }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'unlink'; readonly name: string };

interface WriteUnderWay {
  readonly inode: Inode;
  readonly offset: number;
  readonly before: Buffer;
  readonly length: number;
}

/** An error as the operating system's. */
export function ioError(code: 'ENOSPC' | 'EIO' | 'ENOENT'): Error {
  return Object.assign(new Error(`${code}: simulated`), { code });
}

/** One file's content: what reads see, and what the platters hold. */
class Inode {
  cache: Buffer = Buffer.alloc(0);
  durable: Buffer = Buffer.alloc(0);
  /** Sectors in which the two may differ. */
  readonly dirty = new Set<number>();
  /** Sectors whose writing failed: later syncs believe that they are clean. */
  readonly poisoned = new Set<number>();

  write(bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length;
    if (end > this.cache.length) this.resize(end);
    this.cache.set(bytes, offset);
    for (const sector of sectorsOf(offset, end)) {
      this.dirty.add(sector);
      this.poisoned.delete(sector);
    }
  }

  resize(length: number): void {
    const resized = Buffer.alloc(length);
    this.cache.copy(resized, 0, 0, Math.min(length, this.cache.length));
    for (const sector of sectorsOf(Math.min(length, this.cache.length), Math.max(length, this.cache.length)))
      this.dirty.add(sector);
    this.cache = resized;
  }

  /** What a sync that begins now will have made durable when it completes. */
  beginSync(sectors: Iterable<number>): () => void {
    const length = this.cache.length;
    const contents = [...sectors]
      .filter((sector) => !this.poisoned.has(sector))
      .map((sector) => [sector, Buffer.from(sectorOf(this.cache, sector))] as const);
    return () => {
      this.#resizeDurable(Math.max(length, Math.min(this.durable.length, this.cache.length)));
      for (const [sector, content] of contents) {
        this.#keep(sector, content);
        if (content.equals(sectorOf(this.cache, sector))) this.dirty.delete(sector);
      }
    };
  }

  /** The power fails: each sector that was not synced is there or is not. */
  losePower(chance: Chance): void {
    const [mode, cut] = [chance(), chance()];
    const dirty = [...this.dirty].sort((a, b) => a - b);
    const kept = dirty.filter((_, position) => {
      if (mode < 0.2) return false;
      if (mode < 0.4) return true;
      return mode < 0.6 ? position < cut * dirty.length : chance() < 0.5;
    });
    const contents = kept.map((sector) => [sector, Buffer.from(sectorOf(this.cache, sector))] as const);
    if (chance() < 0.5 || kept.length === dirty.length) this.#resizeDurable(this.cache.length);
    for (const [sector, content] of contents) this.#keep(sector, content);
    this.cache = Buffer.from(this.durable);
    this.dirty.clear();
    this.poisoned.clear();
  }

  #keep(sector: number, content: Buffer): void {
    const end = sector * SECTOR_BYTES + content.length;
    if (end > this.durable.length) this.#resizeDurable(end);
    this.durable.set(content, sector * SECTOR_BYTES);
  }

  #resizeDurable(length: number): void {
    if (length === this.durable.length) return;
    const resized = Buffer.alloc(length);
    this.durable.copy(resized, 0, 0, Math.min(length, this.durable.length));
    this.durable = resized;
  }
}

export class SimDisk implements Disk {
  /** Bytes of all files together; writes beyond are done in part and fail with ENOSPC. */
  capacityBytes = Number.POSITIVE_INFINITY;
  /** Called before each call; what it returns is thrown, after a part of the effect. */
  fault: (call: DiskCall) => Error | undefined = () => undefined;
  /** The machine stops during the call of this number. */
  stopAt = Number.POSITIVE_INFINITY;
  calls = 0;
  readonly #options: SimDiskOptions;
  readonly #stopped = Promise.withResolvers<void>();
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #nameChanges: NameChange[] = [];
  readonly #writes = new Set<WriteUnderWay>();
  #isDead = false;

  constructor(options: SimDiskOptions) {
    this.#options = options;
  }

  /** Resolves when the call `stopAt` was reached. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  get names(): string[] {
    return [...this.#names.keys()].sort();
  }

  get usedBytes(): number {
    return [...this.#names.values()].reduce((sum, { cache }) => sum + cache.length, 0);
  }

  /** What is in a file, to look at and to spoil: reads see changes of it. */
  content(name: string): Buffer {
    return this.#inode(name).cache;
  }

  /** As if an operator had done it: at once, and durable. */
  replace(name: string, content: Uint8Array): void {
    const inode = new Inode();
    inode.cache = Buffer.from(content);
    inode.durable = Buffer.from(content);
    this.#names.set(name, inode);
    this.#durableNames.set(name, inode);
  }

  /** Stops the machine, now if it has not; its calls never complete. Returns the disk that the next start finds. */
  crash(kind: CrashKind): SimDisk {
    const { chance } = this.#options;
    this.#stop();
    for (const write of this.#writes) if (kind === 'process') cutShort(write, chance);
    if (kind === 'power') {
      this.#names = this.#namesAfterPowerLoss();
      this.#nameChanges = [];
      this.#durableNames = new Map(this.#names);
      for (const inode of new Set(this.#names.values())) inode.losePower(chance);
    }
    const next = new SimDisk(this.#options);
    next.#names = this.#names;
    next.#durableNames = this.#durableNames;
    next.#nameChanges = this.#nameChanges;
    next.capacityBytes = this.capacityBytes;
    return next;
  }

  /** An independent copy of what a start would find after a clean end. */
  copy(): SimDisk {
    const copy = new SimDisk(this.#options);
    for (const [name, { cache }] of this.#names) copy.replace(name, cache);
    copy.capacityBytes = this.capacityBytes;
    return copy;
  }

  list(): Promise<string[]> {
    return this.call('list', '', () => () => this.names);
  }

  read(name: string): Promise<Buffer> {
    return this.call('read', name, () => () => Buffer.from(this.#inode(name).cache));
  }

  open(name: string, { create = false, sync = false }: OpenOptions = {}): Promise<DiskFile> {
    return this.call('open', name, () => {
      if (!this.#names.has(name) && create) {
        const inode = new Inode();
        this.#names.set(name, inode);
        this.#nameChanges.push({ kind: 'link', name, inode });
      }
      return () => new SimFile(this, name, this.#inode(name), sync);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.call('rename', from, () => {
      this.#inode(from);
      this.#changeName({ kind: 'rename', from, to });
      return () => {};
    });
  }

  unlink(name: string): Promise<void> {
    return this.call('unlink', name, () => {
      this.#inode(name);
      this.#changeName({ kind: 'unlink', name });
      return () => {};
    });
  }

  syncDirectory(): Promise<void> {
    return this.call('sync-directory', '', () => {
      const changes = this.#nameChanges.length;
      return () => {
        for (const change of this.#nameChanges.splice(0, changes)) applyChange(this.#durableNames, change);
      };
    });
  }

  freeBytes(): Promise<number> {
    return this.call('free', '', () => () => Math.max(0, this.capacityBytes - this.usedBytes));
  }

  /** Begins at once, completes when the schedule says; never when the machine stops before. */
  call<T>(kind: DiskCallKind, name: string, begin: () => () => T): Promise<T> {
    if (this.#isDead) return new Promise(() => {});
    const call: DiskCall = { kind, name, number: ++this.calls };
    const fault = this.fault(call);
    return new Promise((resolve, reject) => {
      let complete: () => T;
      try {
        complete = begin();
      } catch (error) {
        complete = () => {
          throw error;
        };
      }
      if (call.number >= this.stopAt) this.#stop();
      const schedule = this.#options.schedule ?? queueMicrotask;
      schedule(() => {
        if (this.#isDead) return;
        try {
          if (fault !== undefined) throw fault;
          resolve(complete());
        } catch (error) {
          reject(error);
        }
      }, call);
    });
  }

  /** Writes what there is room for; true when that is all. */
  writeTo(inode: Inode, bytes: Uint8Array, offset: number): { isWhole: boolean; done: () => void } {
    const growth = Math.max(0, offset + bytes.length - inode.cache.length);
    const room = Math.max(0, this.capacityBytes - this.usedBytes);
    const isWhole = growth <= room;
    const length = isWhole ? bytes.length : Math.max(0, bytes.length - (growth - room));
    const before = Buffer.from(inode.cache.subarray(offset, offset + length));
    const write = { inode, offset, before, length };
    inode.write(bytes.subarray(0, length), offset);
    this.#writes.add(write);
    return { isWhole, done: () => this.#writes.delete(write) };
  }

  #stop(): void {
    this.#isDead = true;
    this.#stopped.resolve();
  }

  #inode(name: string): Inode {
    const inode = this.#names.get(name);
    if (inode === undefined) throw ioError('ENOENT');
    return inode;
  }

  #changeName(change: NameChange): void {
    applyChange(this.#names, change);
    this.#nameChanges.push(change);
  }

  #namesAfterPowerLoss(): Map<string, Inode> {
    const { chance } = this.#options;
    const names = new Map(this.#durableNames);
    const [mode, cut] = [chance(), chance()];
    for (const [position, change] of this.#nameChanges.entries()) {
      const inOrder = position < cut * this.#nameChanges.length;
      if (mode < 0.25 || (mode < 0.6 ? inOrder : chance() < 0.5)) applyChange(names, change);
    }
    return names;
  }
}

class SimFile implements DiskFile {
  readonly #disk: SimDisk;
  readonly #name: string;
  readonly #inode: Inode;
  readonly #syncsWrites: boolean;
  #isClosed = false;

  constructor(disk: SimDisk, name: string, inode: Inode, syncsWrites: boolean) {
    this.#disk = disk;
    this.#name = name;
    this.#inode = inode;
    this.#syncsWrites = syncsWrites;
  }

  write(bytes: Uint8Array, offset: number): Promise<void> {
    const sectors = [...sectorsOf(offset, offset + bytes.length)];
    return this.#call('write-at', () => {
      const { isWhole, done } = this.#disk.writeTo(this.#inode, bytes, offset);
      // Until it succeeds nothing says that it ever gets to the platters.
      const complete = this.#syncsWrites ? this.#inode.beginSync(sectors) : () => {};
      if (this.#syncsWrites) for (const sector of sectors) this.#inode.poisoned.add(sector);
      return () => {
        done();
        for (const sector of sectors) this.#inode.poisoned.delete(sector);
        if (!isWhole) throw ioError('ENOSPC');
        complete();
      };
    });
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#call(
      'read-at',
      () => () => Buffer.from(this.#inode.cache.subarray(offset, offset + length)),
    );
  }

  truncate(length: number): Promise<void> {
    return this.#call('truncate', () => {
      if (length !== this.#inode.cache.length) this.#inode.resize(length);
      return () => {};
    });
  }

  sync(): Promise<void> {
    return this.#call('sync', () => this.#inode.beginSync(this.#inode.dirty));
  }

  size(): Promise<number> {
    return this.#call('size', () => () => this.#inode.cache.length);
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return this.#disk.call('close', this.#name, () => () => {
      this.#isClosed = true;
    });
  }

  #call<T>(kind: DiskCallKind, begin: () => () => T): Promise<T> {
    assert(!this.#isClosed, `${kind} of ${this.#name}, which is closed`);
    return this.#disk.call(kind, this.#name, begin);
  }
}

/** The process ended within a write: the cache has all of it, nothing, or the first pages. */
function cutShort({ inode, offset, before, length }: WriteUnderWay, chance: Chance): void {
  const [mode, cut] = [chance(), chance()];
  if (mode < 0.4) return;
  const kept = mode < 0.6 ? 0 : Math.floor((cut * length) / PAGE_BYTES) * PAGE_BYTES;
  const lost = Buffer.alloc(length - kept);
  lost.set(before.subarray(kept));
  inode.cache.set(lost, offset + kept);
}

function applyChange(names: Map<string, Inode>, change: NameChange): void {
  if (change.kind === 'link') names.set(change.name, change.inode);
  else if (change.kind === 'unlink') names.delete(change.name);
  else if (names.has(change.from)) {
    names.set(change.to, defined(names.get(change.from), 'the file that is renamed'));
    names.delete(change.from);
  }
}

function* sectorsOf(start: number, end: number): Iterable<number> {
  for (let sector = Math.floor(start / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector++) yield sector;
}

function sectorOf(bytes: Buffer, sector: number): Buffer {
  return bytes.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
}
