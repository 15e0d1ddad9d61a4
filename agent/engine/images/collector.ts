// Removes images that nobody needs: by hand, when they have not been used for long, and when the disk fills up. What a
// container was made from or a service with tasks here runs is never removed; pulls under way hold leases on their parts.

import { messageOf } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { ImageSelection, PruneResult } from '../engine.ts';
import type { ImageCatalog, StoredImage } from './catalog.ts';
import type { ImageDisk } from './image-disk.ts';

export interface ImagePolicy {
  /** Images from registries that were not used for this long are removed; 0: never. */
  readonly keepMs: number;
  /** Above this part of the disk images are removed, those unused for longest first, … */
  readonly highPercent: number;
  /** … until no more than this is used. */
  readonly lowPercent: number;
}

export const DAY_MS = 24 * 3600 * 1000;
export const usualImagePolicy: ImagePolicy = { keepMs: 30 * DAY_MS, highPercent: 85, lowPercent: 80 };

export type RemovalReason = 'by hand' | 'not used' | 'disk pressure';

export interface CollectorOptions {
  readonly catalog: ImageCatalog;
  readonly disk: ImageDisk;
  readonly policy: ImagePolicy;
  /** Ids of the containers that were made from an image. */
  readonly usersOf: (image: StoredImage) => readonly string[];
  /** Names of images that services need; undefined: nobody knows yet. */
  readonly wanted: () => readonly string[] | undefined;
  /** What removing the image frees, besides what others share with it. */
  readonly exclusiveBytes: (image: StoredImage) => Promise<number>;
  readonly onRemoved: (reason: RemovalReason, bytes: number) => void;
  readonly log: Logger;
}

// Whoever has just brought or found an image is about to use it.
const GRACE_MS = 10 * 60_000;
// Each costs a write to containerd's database.
const USE_WRITTEN_MS = 3600_000;

export class ImageCollector {
  readonly #options: CollectorOptions;
  /** The disk is full, and it was said. */
  #isFull = false;

  constructor(options: CollectorOptions) {
    this.#options = options;
  }

  /** Removes what an operator wants to have removed and nobody needs. */
  async prune(selection: ImageSelection): Promise<PruneResult> {
    const { catalog } = this.#options;
    const result = { untagged: [] as string[], deleted: [] as string[], reclaimedBytes: 0 };
    for (const image of this.#unneeded()) {
      const isTagged = catalog.namesOf(image).some(({ tag }) => tag !== undefined);
      if ((isTagged && !selection.all) || !isSelected(image, selection)) continue;
      const removed = await this.#remove(image, 'by hand');
      result.untagged.push(...removed.untagged);
      result.deleted.push(image.configDigest);
      result.reclaimedBytes += removed.bytes;
    }
    return result;
  }

  /** Looks at age and disk; for every few minutes. Does nothing before it is known what services need. */
  async sweep(nowMs: number): Promise<void> {
    const { catalog, usersOf, policy, wanted } = this.#options;
    for (const image of catalog.all()) if (usersOf(image).length > 0) catalog.noteUse(image);
    await catalog.saveUse(USE_WRITTEN_MS);
    if (wanted() === undefined) return;
    // A clock that was ahead has left times that are still to come: those images would never grow old.
    for (const image of catalog.all()) if (catalog.usedAtMs(image) > nowMs) catalog.noteUse(image);
    const unusedMs = (image: StoredImage) => nowMs - catalog.usedAtMs(image);
    // What was loaded by hand nobody could bring back.
    const candidates = () => this.#unneeded().filter((image) => catalog.canBePulledAgain(image));
    if (policy.keepMs > 0)
      for (const image of candidates())
        if (unusedMs(image) > policy.keepMs) await this.#remove(image, 'not used');
    if (!(await this.#isAbove(policy.highPercent))) {
      this.#isFull = false;
      return;
    }
    const byAge = candidates()
      .filter((image) => unusedMs(image) > GRACE_MS)
      .sort((a, b) => unusedMs(b) - unusedMs(a));
    for (const image of byAge) {
      if (!(await this.#isAbove(policy.lowPercent))) return;
      await this.#remove(image, 'disk pressure');
    }
    await this.#warnIfFull();
  }

  async #warnIfFull(): Promise<void> {
    const { policy, log } = this.#options;
    const isFull = await this.#isAbove(policy.highPercent);
    if (isFull && !this.#isFull)
      log.warn(
        { 'percent.max': policy.highPercent },
        'the disk is full, and no image is left that nobody needs',
      );
    this.#isFull = isFull;
  }

  async #isAbove(percent: number): Promise<boolean> {
    const { totalBytes, freeBytes } = await this.#options.disk.measure();
    return (1 - freeBytes / totalBytes) * 100 > percent;
  }

  #unneeded(): StoredImage[] {
    const { catalog, usersOf, wanted } = this.#options;
    const needed = new Set((wanted() ?? []).map((name) => catalog.find(name)?.manifest.digest));
    return catalog.all().filter((image) => usersOf(image).length === 0 && !needed.has(image.manifest.digest));
  }

  async #remove(image: StoredImage, reason: RemovalReason): Promise<{ untagged: string[]; bytes: number }> {
    const { catalog, exclusiveBytes, onRemoved, log } = this.#options;
    const bytes = await exclusiveBytes(image);
    const names = catalog.namesOf(image);
    const [last] = names.slice(-1);
    for (const name of names) await catalog.removeName(name, name === last);
    const untagged = names.map(({ familiar }) => familiar);
    log.info({ image: image.configDigest, names: untagged, reason, bytes }, 'image removed');
    onRemoved(reason, bytes);
    return { untagged, bytes };
  }

  /** A sweep that fails is told and tried again at the next time. */
  async sweepSafely(nowMs: number): Promise<void> {
    try {
      await this.sweep(nowMs);
    } catch (error) {
      this.#options.log.warn({ reason: messageOf(error) }, 'images not looked through');
    }
  }
}

function isSelected(image: StoredImage, { untilMs, labels, withoutLabels }: ImageSelection): boolean {
  const { createdAtMs, labels: own } = image.configuration;
  const has = (wanted: string) => {
    const [key = '', ...value] = wanted.split('=');
    return Object.hasOwn(own, key) && (value.length === 0 || own[key] === value.join('='));
  };
  return (untilMs === 0 || createdAtMs < untilMs) && labels.every(has) && !withoutLabels.some(has);
}
