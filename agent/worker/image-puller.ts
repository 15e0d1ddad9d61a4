// Brings images here before containers need them. One pull at a time for one image; every task that waits for it
// shares the outcome.

import { messageOf, SwarmError } from '../../core/errors.ts';
import type { PullPolicy, RegistryAuth, Revision } from '../../core/generated/objects.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import type { Images, PullOptions } from '../engine/engine.ts';
import { workerLog } from '../log.ts';

// A registry that is asked only whether a tag moved must not hold up a task whose image is here.
const REFRESH_LIMIT_MS = 5_000;

/** Gives what the registry asks for. Throws `unavailable` while that is not known. */
type FindAuth = () => RegistryAuth | undefined;

export class ImagePuller {
  readonly #images: Images;
  readonly #running = new Map<string, Promise<void>>();
  /** Images that were looked up, by revision: a tag is asked for once for each spec. */
  readonly #fresh = new Map<string, Set<string>>();

  constructor(images: Images) {
    this.#images = images;
  }

  /** The images of a task are here afterwards, in the version that the pull policy of its spec asks for. */
  ensure(revision: Revision, images: readonly string[], findAuth: FindAuth): Promise<void> {
    const key = [revision.id, ...images].join(' ');
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const pull = this.#ensure(revision, images, findAuth).finally(() => this.#running.delete(key));
    this.#running.set(key, pull);
    return pull;
  }

  /** No task of the revision is left. */
  forget(revisionId: string): void {
    this.#fresh.delete(revisionId);
  }

  async #ensure({ id, spec }: Revision, images: readonly string[], findAuth: FindAuth): Promise<void> {
    const { pullPolicy } = spec.task.container;
    const fresh = this.#fresh.get(id) ?? new Set();
    await Promise.all(
      images.map((image) => this.#ensureOne(image, pullPolicy, { isFresh: fresh.has(image), findAuth })),
    );
    this.#fresh.set(id, new Set([...fresh, ...images]));
  }

  async #ensureOne(
    image: string,
    policy: PullPolicy,
    { isFresh, findAuth }: { readonly isFresh: boolean; readonly findAuth: FindAuth },
  ): Promise<void> {
    const local = await this.#images.find(image);
    switch (policy) {
      case 'never':
        if (local === undefined) throw notHere(image);
        return;
      case 'missing':
        if (local === undefined) await this.#pull(image, optionsWith(findAuth, image));
        return;
      case 'always':
        return this.#pull(image, optionsWith(findAuth, image));
      default:
        if (local === undefined) await this.#pull(image, optionsWith(findAuth, image));
        else if (!image.includes('@') && !isFresh) await this.#refresh(image, findAuth);
    }
  }

  async #pull(image: string, options: PullOptions): Promise<void> {
    try {
      await this.#images.pull(image, options);
    } catch (error) {
      throw explainPull(image, error);
    }
  }

  /** The tag may have moved: where the registry can be asked, what it has now is taken. */
  async #refresh(image: string, findAuth: FindAuth): Promise<void> {
    const options = { ...optionsWith(findAuth, image), signal: AbortSignal.timeout(REFRESH_LIMIT_MS) };
    try {
      await this.#images.pull(image, options);
    } catch (error) {
      workerLog.info({ image, error: messageOf(error) }, 'image not refreshed, the one that is here is used');
    }
  }
}

/** Of several images only those of the registry that the credentials are for are pulled with them. */
function optionsWith(findAuth: FindAuth, image: string): PullOptions {
  const credentials = findAuth();
  const isMeant = credentials?.registry === parseImageReference(image).registry;
  return credentials !== undefined && isMeant ? { credentials } : {};
}

function notHere(image: string): SwarmError {
  return new SwarmError('not-found', `No such image: ${image}: it is not on this node, and is never pulled`, {
    hint: 'Bring it here with "tsswarm image pull" or "image load", or give the service another --pull.',
  });
}

function explainPull(image: string, cause: unknown): SwarmError {
  const isMissing = cause instanceof SwarmError && cause.code === 'not-found';
  return isMissing
    ? new SwarmError('not-found', `No such image: ${image}`, { cause })
    : new SwarmError('failed-precondition', `cannot pull ${image}: ${messageOf(cause)}`, { cause });
}
