// The room that the log will need: the next segment, filled with zeros before it is asked for, and a ballast that is
// given up when the disk is full. A disk that is full is a state, not a failure: it is told, and it passes.

import { type Disk, type DiskFile, isNoSpace } from './disk.ts';

/**
 * - `ok`: the next segment is there or can be.
 * - `low`: there is little room, or the next segment could not be prepared. Appends still succeed; what can be done about
 *   it should be done now: no more proposals, leadership to another member, an alarm.
 * - `full`: an append was refused.
 */
export type SpaceState = 'ok' | 'low' | 'full';

export interface SupplyOptions {
  readonly disk: Disk;
  readonly segmentBytes: { readonly first: number; readonly max: number };
  readonly ballastBytesMin: number;
  readonly lowWatermarkBytes: number;
  readonly onSpace: (state: SpaceState) => void;
  /** A failure that is not one of room. */
  readonly onFailure: (error: unknown) => void;
}

export interface FreshSegment {
  /** Name of the file until the segment is begun. */
  readonly name: string;
  /** Open for durable writes. */
  readonly file: DiskFile;
  readonly capacity: number;
}

interface Spare {
  readonly name: string;
  readonly file: DiskFile;
  filledBytes: number;
}

const BALLAST = 'ballast';
// One write of zeros: long enough to be cheap, short enough not to hold up a commit behind it.
const FILL_BYTES = 256 * 1024;
const ZEROS = Buffer.alloc(FILL_BYTES);
// The next segment is there when this one is half used.
const FILL_LEAD = 2;
// Ballast, as a part of a segment: what can be in flight grows with the segments.
const BALLAST_SHARE = 16;
// Segments end at a page.
const PAGE_BYTES = 4096;

export class SegmentSupply {
  readonly #options: SupplyOptions;
  #state: SpaceState = 'ok';
  /** A write found no room: nothing is prepared until a review finds some. */
  #isExhausted = false;
  #spare: Spare | undefined;
  #nextBytes: number;
  #ordinal = 0;
  #ballastBytes = 0;
  /** One thing at a time. */
  #work: Promise<unknown> = Promise.resolve();
  #isFilling = false;
  #wantedBytes = 0;
  #isClosed = false;

  constructor(options: SupplyOptions) {
    this.#options = options;
    this.#nextBytes = options.segmentBytes.first;
  }

  get state(): SpaceState {
    return this.#state;
  }

  /** Looks for what an earlier process left. */
  async open(names: readonly string[]): Promise<void> {
    if (!names.includes(BALLAST)) return;
    const file = await this.#options.disk.open(BALLAST);
    this.#ballastBytes = await file.size();
    await file.close();
  }

  /** The segment in use has come this far: the next one is filled in proportion, in the background. */
  pace(usedBytes: number, capacity: number): void {
    const wanted = ((usedBytes * FILL_LEAD) / capacity) * this.#nextBytes;
    this.#wantedBytes = Math.min(this.#nextBytes, Math.ceil(wanted / FILL_BYTES) * FILL_BYTES);
    if (this.#isFilling || this.#isExhausted || this.#isClosed) return;
    if (this.#wantedBytes <= (this.#spare?.filledBytes ?? 0)) return;
    this.#isFilling = true;
    this.#background(async () => {
      try {
        await this.#fill(() => this.#wantedBytes);
      } finally {
        this.#isFilling = false;
      }
    });
  }

  /** A segment with room for so many bytes; undefined when the disk is full. */
  take(bytes: number): Promise<FreshSegment | undefined> {
    return this.#serially(() => this.#take(pages(bytes)));
  }

  /** Is there room for the next segment? Restores the ballast, in the background. */
  review(): void {
    this.#background(() => this.#review());
  }

  /** Asks again whether there is room, and says what came of it. */
  async retry(): Promise<SpaceState> {
    this.review();
    await this.#work;
    return this.#state;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#work;
    await this.#spare?.file.close();
    this.#spare = undefined;
  }

  #serially<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#work.then(work);
    this.#work = done.catch(() => {});
    return done;
  }

  #background(work: () => Promise<void>): void {
    this.#serially(work).catch((error) => {
      if (isNoSpace(error)) this.#exhausted();
      else this.#options.onFailure(error);
    });
  }

  async #take(bytes: number): Promise<FreshSegment | undefined> {
    const size = Math.max(this.#nextBytes, bytes);
    try {
      await this.#fill(() => size);
      this.#nextBytes = Math.min(this.#options.segmentBytes.max, 2 * size);
    } catch (error) {
      if (!isNoSpace(error)) throw error;
      this.#exhausted();
      await this.#fillFromBallast(bytes);
    }
    const spare = this.#spare;
    if (spare === undefined || spare.filledBytes < bytes) {
      this.#become('full');
      return undefined;
    }
    this.#spare = undefined;
    this.#wantedBytes = 0;
    if (this.#state === 'full') this.#become('low');
    return { name: spare.name, file: spare.file, capacity: spare.filledBytes };
  }

  async #review(): Promise<void> {
    const { disk, segmentBytes, lowWatermarkBytes, ballastBytesMin } = this.#options;
    const free = await disk.freeBytes();
    if (free < lowWatermarkBytes) this.#nextBytes = segmentBytes.first;
    const ballastBytes = pages(Math.max(ballastBytesMin, this.#nextBytes / BALLAST_SHARE));
    const missing = this.#nextBytes - (this.#spare?.filledBytes ?? 0) + ballastBytes - this.#ballastBytes;
    if (free < missing) return this.#exhausted();
    await this.#growBallast(ballastBytes);
    this.#isExhausted = false;
    this.#become(free < lowWatermarkBytes ? 'low' : 'ok');
  }

  /** Zeros up to a length, which may grow meanwhile. */
  async #fill(wanted: () => number): Promise<void> {
    this.#spare ??= await this.#beginSpare();
    const spare = this.#spare;
    while (spare.filledBytes < wanted() && !this.#isClosed) {
      const count = Math.min(FILL_BYTES, wanted() - spare.filledBytes);
      await spare.file.write(ZEROS.subarray(0, count), spare.filledBytes);
      spare.filledBytes += count;
    }
  }

  async #beginSpare(): Promise<Spare> {
    const name = `spare-${++this.#ordinal}.tmp`;
    const file = await this.#options.disk.open(name, { create: true, sync: true });
    return { name, file, filledBytes: 0 };
  }

  /** The disk is full: what is filled has to do, with the ballast's room if need be. */
  async #fillFromBallast(bytes: number): Promise<void> {
    if ((this.#spare?.filledBytes ?? 0) >= bytes) return;
    const room = this.#ballastBytes;
    try {
      await this.#releaseBallast();
      await this.#fill(() => bytes);
      // What comes after these bytes shall find room as well.
      await this.#fill(() => Math.max(bytes, room));
    } catch (error) {
      if (!isNoSpace(error)) throw error;
    }
    // A write that found no room may have been done in part.
    await this.#spare?.file.truncate(this.#spare.filledBytes);
  }

  async #releaseBallast(): Promise<void> {
    if (this.#ballastBytes === 0) return;
    this.#ballastBytes = 0;
    await this.#options.disk.unlink(BALLAST);
    // File systems with a journal give the room back when the unlinking is durable.
    await this.#options.disk.syncDirectory();
  }

  async #growBallast(bytes: number): Promise<void> {
    if (this.#ballastBytes >= bytes || this.#isClosed) return;
    const file = await this.#options.disk.open(BALLAST, { create: true });
    try {
      for (let offset = this.#ballastBytes; offset < bytes && !this.#isClosed; offset += FILL_BYTES)
        await file.write(ZEROS.subarray(0, Math.min(FILL_BYTES, bytes - offset)), offset);
      await file.sync();
      this.#ballastBytes = await file.size();
    } catch (error) {
      // What was written of it is room that appends may need more.
      if (isNoSpace(error)) await file.truncate(this.#ballastBytes);
      throw error;
    } finally {
      await file.close();
    }
  }

  #exhausted(): void {
    this.#isExhausted = true;
    if (this.#state === 'ok') this.#become('low');
  }

  #become(state: SpaceState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.onSpace(state);
  }
}

function pages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
