// What operators ask of this machine: membership, and the local engine's images and volumes.

import type { Engine, LocalImage, PullProgress, VolumeSummary } from '../agent/engine/engine.ts';
import { SwarmError } from '../core/errors.ts';
import { parseJoinToken } from '../core/join-token.ts';
import type {
  ImageProgress,
  ImportImagesRequest,
  InitResponse,
  NodeControlService,
  RestoreRequest,
  Volume,
} from '../proto/generated/node.ts';
import { AsyncQueue } from '../rpc/queue.ts';
import type { Handlers } from '../rpc/server.ts';
import type { Daemon } from './daemon.ts';

export function nodeHandlers(daemon: Daemon): Handlers<typeof NodeControlService> {
  const { images, volumes } = daemon.engine;
  return {
    info: () => daemon.info(),
    init: (request) => daemon.init(request),
    join: (request) => {
      // A word that is no token is told at once, before this machine and the managers are looked at.
      parseJoinToken(request.token);
      return daemon.join(request);
    },
    unlock: async ({ key }) => {
      await daemon.unlock(key);
      return {};
    },
    examine: async (request) => ({ findings: await daemon.examine(request) }),
    restore: (requests) => restore(daemon, requests),
    leave: async ({ force }) => {
      await daemon.leave(force);
      return {};
    },
    listImages: async () => ({ images: (await images.list()).map(toSummary) }),
    pullImage: ({ reference, auth, platform }, { signal }) =>
      pullImage(daemon.engine, { reference, platform, signal, ...(auth && { credentials: auth }) }),
    importImages: async (requests) => ({ names: await importImages(daemon.engine, requests) }),
    async *exportImages({ references }) {
      for await (const data of images.export(references)) yield { data };
    },
    removeImage: ({ reference, force }) => images.remove(reference, { force }),
    resolveImage: async ({ reference, auth }, { signal }) => {
      const { digest, platforms } = await images.resolve(reference, {
        signal,
        ...(auth && { credentials: auth }),
      });
      return { digest, platforms: [...platforms] };
    },
    createVolume: async (request) => ({ volume: toVolume(await volumes.create(request)) }),
    listVolumes: async () => ({ volumes: (await volumes.list()).map(toVolume) }),
    removeVolume: async ({ name }) => {
      await volumes.remove(name);
      return {};
    },
  };
}

async function restore(daemon: Daemon, requests: AsyncIterable<RestoreRequest>): Promise<InitResponse> {
  const { first, rest } = await splitFirst(requests);
  return daemon.restore(first, rest);
}

/** The first message of an upload, which has the options, and the bytes of all. */
async function splitFirst<T extends { readonly data: Uint8Array }>(
  requests: AsyncIterable<T>,
): Promise<{ first: T; rest: AsyncIterable<Uint8Array> }> {
  const iterator = requests[Symbol.asyncIterator]();
  const head = await iterator.next();
  if (head.done) throw new SwarmError('invalid-argument', 'the upload is empty');
  const first = head.value;
  async function* rest(): AsyncIterable<Uint8Array> {
    if (first.data.length > 0) yield first.data;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value.data;
  }
  return { first, rest: rest() };
}

function toVolume({ isAnonymous, ...volume }: VolumeSummary): Volume {
  return { ...volume, anonymous: isAnonymous };
}

function toSummary(image: LocalImage) {
  return { ...image, tags: [...image.tags], digests: [...image.digests] };
}

interface PullRequest {
  readonly reference: string;
  readonly platform: string;
  readonly signal: AbortSignal;
  readonly credentials?: { readonly username: string; readonly password: string };
}

async function* pullImage(
  engine: Engine,
  { reference, platform, signal, credentials }: PullRequest,
): AsyncIterable<ImageProgress> {
  const queue = new AsyncQueue<ImageProgress>();
  const onProgress = (progress: PullProgress) => queue.push({ ...progress, digest: '' });
  engine.images
    .pull(reference, {
      onProgress,
      signal,
      ...(platform && { platform }),
      ...(credentials && { credentials }),
    })
    .then(
      (digest) => {
        queue.push({ id: '', status: 'Pull complete', currentBytes: 0, totalBytes: 0, digest });
        queue.end();
      },
      (error) => queue.end(error),
    );
  yield* queue;
}

async function importImages(engine: Engine, requests: AsyncIterable<ImportImagesRequest>): Promise<string[]> {
  const { first, rest } = await splitFirst(requests);
  return engine.images.import(rest, first.reference === '' ? undefined : first.reference);
}
