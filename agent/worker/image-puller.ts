// Brings images here before containers need them. One pull at a time for one image; every task that waits for it
// shares the outcome.

import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Images } from '../engine/engine.ts';
import { workerLog } from '../log.ts';

// A registry that is asked only whether a tag moved must not hold up a task whose image is here.
const REFRESH_LIMIT_MS = 5_000;

export class ImagePuller {
  readonly #images: Images;
  readonly #running = new Map<string, Promise<void>>();
  /** "<revision> <image>" that were looked up: a tag is asked for once for each spec. */
  readonly #fresh = new Set<string>();

  constructor(images: Images) {
    this.#images = images;
  }

  /** The image is here afterwards, in the version that the registry has now if it can be asked. */
  ensure(image: string, revisionId: string): Promise<void> {
    const key = `${revisionId} ${image}`;
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const pull = this.#ensure(image, key).finally(() => this.#running.delete(key));
    this.#running.set(key, pull);
    return pull;
  }

  /** No task of the revision is left. */
  forget(revisionId: string): void {
    for (const key of this.#fresh) if (key.startsWith(`${revisionId} `)) this.#fresh.delete(key);
  }

  async #ensure(image: string, key: string): Promise<void> {
    const local = await this.#images.find(image);
    const isPinned = image.includes('@');
    if (local !== undefined && (isPinned || this.#fresh.has(key))) return;
    try {
      const options = local === undefined ? {} : { signal: AbortSignal.timeout(REFRESH_LIMIT_MS) };
      await this.#images.pull(image, options);
    } catch (error) {
      if (local === undefined) throw explainPull(image, error);
      workerLog.info({ image, error: messageOf(error) }, 'image not refreshed, the one that is here is used');
    }
    this.#fresh.add(key);
  }
}

function explainPull(image: string, cause: unknown): SwarmError {
  const isMissing = cause instanceof SwarmError && cause.code === 'not-found';
  return isMissing
    ? new SwarmError('not-found', `No such image: ${image}`, { cause })
    : new SwarmError('failed-precondition', `cannot pull ${image}: ${messageOf(cause)}`, { cause });
}
