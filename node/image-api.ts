// What operators ask of the images of this machine.

import type { Images, LocalImage, PlatformOption, PullProgress } from '../agent/engine/engine.ts';
import type {
  CreateImageRequest,
  ImageProgress,
  ImageSummary,
  ImportImagesRequest,
  NodeControlService,
} from '../proto/generated/node.ts';
import { AsyncQueue } from '../rpc/queue.ts';
import type { Handlers } from '../rpc/server.ts';
import { splitFirst } from './upload.ts';

type ImageMethod =
  | 'listImages'
  | 'pullImage'
  | 'importImages'
  | 'exportImages'
  | 'removeImage'
  | 'resolveImage'
  | 'checkRegistry'
  | 'listTags'
  | 'pushImage'
  | 'tagImage'
  | 'inspectImage'
  | 'createImage'
  | 'pruneImages';

export function imageHandlers(images: Images): Pick<Handlers<typeof NodeControlService>, ImageMethod> {
  return {
    listImages: async () => ({ images: (await images.list()).map(toSummary) }),
    pullImage: ({ reference, auth, platform }, { signal }) =>
      withProgress(async (onProgress) => {
        const options = { onProgress, signal, ...(auth && { credentials: auth }) };
        return images.pull(reference, { ...options, ...optional(platform) });
      }),
    importImages: async (requests) => ({ names: await importImages(images, requests) }),
    async *exportImages({ references, platform }) {
      for await (const data of images.export(references, optional(platform))) yield { data };
    },
    removeImage: ({ reference, force, platform }) =>
      images.remove(reference, { force, ...optional(platform) }),
    resolveImage: async ({ reference, auth }, { signal }) => {
      const { digest, platforms } = await images.resolve(reference, {
        signal,
        ...(auth && { credentials: auth }),
      });
      return { digest, platforms: [...platforms] };
    },
    checkRegistry: async ({ auth }, { signal }) => {
      await images.check(auth.registry, auth, signal);
      return {};
    },
    listTags: async ({ reference, auth }, { signal }) => ({
      tags: await images.tags(reference, { signal, ...(auth && { credentials: auth }) }),
    }),
    pushImage: ({ reference, auth, platform }, { signal }) =>
      withProgress(async (onProgress) => {
        const options = { onProgress, signal, ...optional(platform), ...(auth && { credentials: auth }) };
        const { digest, sizeBytes } = await images.push(reference, options);
        onProgress({ id: '', status: 'pushed', currentBytes: sizeBytes, totalBytes: sizeBytes });
        return digest;
      }),
    tagImage: async ({ source, target }) => {
      await images.tag(source, target);
      return {};
    },
    inspectImage: async ({ reference, platform }) => {
      const { summary, configuration, layers } = await images.inspect(reference, optional(platform));
      return { summary: toSummary(summary), configuration, layers: [...layers] };
    },
    createImage: async (requests) => ({ id: await createImage(images, requests) }),
    pruneImages: async (request) => {
      const { untagged, deleted, reclaimedBytes } = await images.prune(request);
      return { untagged: [...untagged], deleted: [...deleted], reclaimedBytes };
    },
  };
}

/** Empty: not asked for. */
function optional(platform: string): PlatformOption {
  return platform === '' ? {} : { platform };
}

function toSummary(image: LocalImage): ImageSummary {
  return { ...image, tags: [...image.tags], digests: [...image.digests] };
}

/** What is told on the way, and the digest as the last message. */
async function* withProgress(
  work: (onProgress: (progress: PullProgress) => void) => Promise<string>,
): AsyncIterable<ImageProgress> {
  const queue = new AsyncQueue<ImageProgress>();
  work((progress) => queue.push({ ...progress, digest: '' })).then(
    (digest) => {
      queue.push({ id: '', status: 'complete', currentBytes: 0, totalBytes: 0, digest });
      queue.end();
    },
    (error) => queue.end(error),
  );
  yield* queue;
}

async function importImages(images: Images, requests: AsyncIterable<ImportImagesRequest>): Promise<string[]> {
  const { first, rest } = await splitFirst(requests);
  const { reference, platform } = first;
  return images.import(rest, { ...(reference !== '' && { name: reference }), ...optional(platform) });
}

async function createImage(images: Images, requests: AsyncIterable<CreateImageRequest>): Promise<string> {
  const { first, rest } = await splitFirst(requests);
  const { reference, message, changes, platform } = first;
  return images.create(rest, {
    changes,
    ...(reference !== '' && { reference }),
    ...(message !== '' && { message }),
    ...optional(platform),
  });
}
