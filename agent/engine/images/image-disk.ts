// The disk that images lie on: how full it is, and what may be written to it. Archives and registries say how large things
// are, but only the disk tells the truth about what a layer unpacks to.

import { statfs } from 'node:fs/promises';
import { SwarmError } from '../../../core/errors.ts';

export interface DiskUse {
  readonly totalBytes: number;
  /** What a program without privileges may still write. */
  readonly freeBytes: number;
}

export interface UnpackLimits {
  /** Unpacked bytes for each byte of a layer, beyond `freelyBytes`. Real layers stay below twenty. */
  readonly ratioMax: number;
  /** However small the layer is. */
  readonly freelyBytes: number;
  /** Has to stay free on the disk, but never more than a twentieth: managers and containers write there as well. */
  readonly reserveBytes: number;
  readonly periodMs: number;
}

export const usualUnpackLimits: UnpackLimits = {
  ratioMax: 100,
  freelyBytes: 2 ** 30,
  reserveBytes: 512 * 2 ** 20,
  periodMs: 250,
};

export interface ImageDisk {
  readonly limits: UnpackLimits;
  measure(): Promise<DiskUse>;
}

/** The disk with this directory. */
export function diskOf(directory: string, limits: UnpackLimits = usualUnpackLimits): ImageDisk {
  return {
    limits,
    async measure() {
      const { bsize, blocks, bfree, bavail } = await statfs(directory);
      // As df counts: what is kept for root belongs to nobody.
      return { totalBytes: (blocks - bfree + bavail) * bsize, freeBytes: bavail * bsize };
    },
  };
}

/** Throws `resource-exhausted` when so much cannot be written. */
export async function requireRoom(disk: ImageDisk, what: string, bytes: number): Promise<void> {
  const { freeBytes, totalBytes } = await disk.measure();
  const roomBytes = Math.max(0, freeBytes - reserveOf(disk.limits, totalBytes));
  if (bytes > roomBytes)
    throw new SwarmError(
      'resource-exhausted',
      `${what} has ${bytes} bytes, and there is room for ${roomBytes} on the disk of this node`,
      { hint: 'Remove images that are not needed: "tsswarm image prune -a".' },
    );
}

function reserveOf({ reserveBytes }: UnpackLimits, totalBytes: number): number {
  return Math.min(reserveBytes, Math.round(totalBytes / 20));
}

export interface Growth {
  /** For messages: "layer sha256:…". */
  readonly what: string;
  readonly packedBytes: number;
  readonly unpackedBytes: () => Promise<number>;
}

/** Runs work that writes to the disk, and aborts it when it writes more than it may; then throws why. */
export async function whileItFits<T>(
  disk: ImageDisk,
  growth: Growth,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const done = new AbortController();
  const watching = watch(disk, growth, done.signal).then((reason) => {
    if (reason !== undefined) stop.abort(reason);
  });
  try {
    return await work(stop.signal);
  } catch (error) {
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    done.abort();
    await watching;
  }
}

/** Why it has to end, or undefined when it ended by itself. */
async function watch(disk: ImageDisk, growth: Growth, done: AbortSignal): Promise<SwarmError | undefined> {
  const { ratioMax, freelyBytes, periodMs } = disk.limits;
  const mostBytes = Math.max(freelyBytes, growth.packedBytes * ratioMax);
  for (;;) {
    await pause(periodMs, done);
    if (done.aborted) return undefined;
    // A look that fails is repeated; what is wrong with containerd the work itself hears.
    const unpackedBytes = await growth.unpackedBytes().catch(() => 0);
    const { freeBytes, totalBytes } = await disk.measure();
    const leastBytes = reserveOf(disk.limits, totalBytes);
    if (unpackedBytes > mostBytes)
      return new SwarmError(
        'invalid-argument',
        `${growth.what} of ${growth.packedBytes} bytes unpacks to more than ${mostBytes}: that is no image, but a bomb`,
      );
    if (freeBytes < leastBytes)
      return new SwarmError(
        'resource-exhausted',
        `${growth.what} does not fit: less than ${leastBytes} bytes are left on the disk of this node`,
        { hint: 'Remove images that are not needed: "tsswarm image prune -a".' },
      );
  }
}

function pause(ms: number, done: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const onDone = () => {
      clearTimeout(timer);
      resolve();
    };
    if (done.aborted) onDone();
    else done.addEventListener('abort', onDone, { once: true });
  });
}
