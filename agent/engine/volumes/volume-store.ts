// The volumes of this machine: a directory each, with what it is in `volume.json` beside its data. A volume with options
// is mounted when its first container comes, in memory's part of the tree, and unmounted when the last one has gone.

import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import { requireVolumeName, validateVolumeDriver } from '../../../core/validate-mounts.ts';
import { isMountPoint, unmountAll } from '../containerd/mounts.ts';
import type { VolumeRequest, VolumeSummary, Volumes } from '../engine.ts';
import { SingleFlight } from '../limiter.ts';
import { mountLocal } from './local-mount.ts';

export interface VolumeStoreOptions {
  /** Lasting. */
  readonly root: string;
  /** For mounted volumes: shared with containerd, and gone with the boot. */
  readonly mountsRoot: string;
}

interface VolumeFile {
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
  readonly isAnonymous: boolean;
  readonly createdAtMs: number;
  /** Its first contents are on their way, or were when the process ended. */
  readonly isFilling?: boolean;
  /** The container that it is removed with. */
  readonly containerId?: string;
}

export interface OwnedVolumeRequest extends VolumeRequest {
  readonly containerId?: string | undefined;
}

const RECORD_FILE = 'volume.json';
const DATA_FOLDER = '_data';
const NAME_BYTES = 32;

export class VolumeStore implements Volumes {
  readonly #options: VolumeStoreOptions;
  readonly #volumes = new Map<string, VolumeFile>();
  /** Containers by the volumes that they have. */
  readonly #users = new Map<string, Set<string>>();
  readonly #mounting = new SingleFlight<void>();

  constructor(options: VolumeStoreOptions) {
    this.#options = options;
    for (const directory of [options.root, options.mountsRoot])
      mkdirSync(directory, { recursive: true, mode: 0o711 });
    for (const name of readdirSync(options.root)) {
      const file = readRecord(path.join(options.root, name, RECORD_FILE));
      if (file !== undefined) this.#volumes.set(name, file);
      // Its creation was cut off, or its removal.
      else rmSync(path.join(options.root, name), { recursive: true, force: true });
    }
  }

  async create(request: OwnedVolumeRequest): Promise<VolumeSummary> {
    const name = request.name || randomBytes(NAME_BYTES).toString('hex');
    requireVolumeName('name', name);
    validateVolumeDriver('', 'local', request.options);
    const known = this.#volumes.get(name);
    if (known !== undefined) {
      requireSameOptions(name, known, request);
      return this.#summary(name, known);
    }
    const { labels, options, containerId } = request;
    const isAnonymous = request.name === '' || containerId !== undefined;
    const createdAtMs = Date.now();
    const file = { labels, options, isAnonymous, createdAtMs, ...(containerId && { containerId }) };
    mkdirSync(path.join(this.#directory(name), DATA_FOLDER), { recursive: true, mode: 0o755 });
    this.#write(name, file);
    return this.#summary(name, file);
  }

  async list(): Promise<VolumeSummary[]> {
    return [...this.#volumes].map(([name, file]) => this.#summary(name, file));
  }

  async remove(name: string): Promise<void> {
    if (!this.#volumes.has(name)) throw new SwarmError('not-found', `get ${name}: no such volume`);
    const [user] = this.#users.get(name) ?? [];
    if (user !== undefined)
      throw new SwarmError('failed-precondition', `remove ${name}: volume is in use by container ${user}`, {
        hint: 'Remove the service or the mount first: "tsswarm service ls" and "service ps" show who has it.',
      });
    this.#delete(name);
  }

  /** The volume belongs to the container as well from now on, and is mounted; returns its directory. */
  async claim(name: string, containerId: string): Promise<string> {
    const file = this.#volumes.get(name);
    if (file === undefined) throw new SwarmError('not-found', `get ${name}: no such volume`);
    this.addUser(name, containerId);
    const place = this.#mountpoint(name, file);
    if (hasMount(file))
      await this.#mounting.run(name, async () => {
        mkdirSync(place, { recursive: true, mode: 0o755 });
        if (!isMountPoint(place)) await mountLocal(name, file.options, place);
      });
    return place;
  }

  /** Fills a volume that is empty, or that a killed process has begun to fill. */
  async fillOnce(name: string, fill: (directory: string) => Promise<void>): Promise<void> {
    const file = this.#volumes.get(name);
    if (file === undefined) throw new SwarmError('not-found', `get ${name}: no such volume`);
    const directory = this.#mountpoint(name, file);
    const entries = readdirSync(directory);
    // What is mounted may be anybody's; nor may others have begun to use it.
    const isHalfFilled = file.isFilling === true && !hasMount(file) && this.#users.get(name)?.size === 1;
    if (entries.length > 0 && !isHalfFilled) return;
    for (const entry of entries) rmSync(path.join(directory, entry), { recursive: true, force: true });
    this.#write(name, { ...file, isFilling: true });
    await fill(directory);
    this.#write(name, file.isFilling === undefined ? file : { ...file, isFilling: false });
  }

  #write(name: string, file: VolumeFile): void {
    writeRecord(path.join(this.#directory(name), RECORD_FILE), file);
    this.#volumes.set(name, file);
  }

  /** For a container that was there before this process. */
  addUser(name: string, containerId: string): void {
    const users = this.#users.get(name) ?? new Set();
    this.#users.set(name, users.add(containerId));
  }

  /** A container is gone: its anonymous volumes go, and what it was the last user of is unmounted. */
  release(containerId: string): void {
    for (const [name, users] of this.#users) {
      if (!users.delete(containerId) || users.size > 0) continue;
      this.#users.delete(name);
      this.#unmount(name);
    }
    for (const [name, file] of this.#volumes) if (file.containerId === containerId) this.#delete(name);
  }

  /** Removes what belongs to containers that are not there any more: the process ended before it could. */
  sweep(isThere: (containerId: string) => boolean): void {
    for (const [name, { containerId }] of this.#volumes)
      if (containerId !== undefined && !isThere(containerId)) this.#delete(name);
    for (const name of readdirSync(this.#options.mountsRoot)) if (!this.#users.has(name)) this.#unmount(name);
  }

  #delete(name: string): void {
    this.#unmount(name);
    this.#volumes.delete(name);
    // Without its record it is none, however far the rest gets.
    rmSync(path.join(this.#directory(name), RECORD_FILE), { force: true });
    rmSync(this.#directory(name), { recursive: true, force: true });
  }

  #unmount(name: string): void {
    const place = path.join(this.#options.mountsRoot, name);
    if (!existsSync(place)) return;
    unmountAll(place);
    rmdirSync(place);
  }

  #directory(name: string): string {
    return path.join(this.#options.root, name);
  }

  #mountpoint(name: string, file: VolumeFile): string {
    return hasMount(file)
      ? path.join(this.#options.mountsRoot, name)
      : path.join(this.#directory(name), DATA_FOLDER);
  }

  #summary(name: string, file: VolumeFile): VolumeSummary {
    const { labels, options, isAnonymous, createdAtMs } = file;
    const usedBy = [...(this.#users.get(name) ?? [])];
    return {
      name,
      labels,
      options,
      isAnonymous,
      createdAtMs,
      usedBy,
      mountpoint: this.#mountpoint(name, file),
    };
  }
}

function hasMount({ options }: VolumeFile): boolean {
  return Object.keys(options).length > 0;
}

/** Without options, any volume of the name is meant. */
function requireSameOptions(name: string, { options }: VolumeFile, asked: VolumeRequest): void {
  const text = (map: Readonly<Record<string, string>>) => JSON.stringify(Object.entries(map).sort());
  if (Object.keys(asked.options).length === 0 || text(options) === text(asked.options)) return;
  throw new SwarmError('already-exists', `volume ${name} exists with other options`, {
    hint: 'Remove it first, or take another name.',
  });
}

function readRecord(file: string): VolumeFile | undefined {
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as VolumeFile;
}

/** Whole or not at all. */
function writeRecord(file: string, record: VolumeFile): void {
  writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
