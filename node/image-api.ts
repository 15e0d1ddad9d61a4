// What operators ask of the images of this machine.

import type { Images, LocalImage, PullProgress } from '../agent/engine/engine.ts';
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
        return images.pull(reference, { ...options, ...(platform && { platform }) });
      }),
    importImages: async (requests) => ({ names: await importImages(images, requests) }),
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
    checkRegistry: async ({ auth }, { signal }) => {
      await images.check(auth.registry, auth, signal);
      return {};
    },
    listTags: async ({ reference, auth }, { signal }) => ({
      tags: await images.tags(reference, { signal, ...(auth && { credentials: auth }) }),
    }),
    pushImage: ({ reference, auth }, { signal }) =>
      withProgress(async (onProgress) => {
        const options = { onProgress, signal, ...(auth && { credentials: auth }) };
        const { digest, sizeBytes } = await images.push(reference, options);
        onProgress({ id: '', status: 'pushed', currentBytes: sizeBytes, totalBytes: sizeBytes });
        return digest;
      }),
    tagImage: async ({ source, target }) => {
      await images.tag(source, target);
      return {};
    },
    inspectImage: async ({ reference }) => {
      const { summary, configuration, layers } = await images.inspect(reference);
      return { summary: toSummary(summary), configuration, layers: [...layers] };
    },
    createImage: async (requests) => ({ id: await createImage(images, requests) }),
    pruneImages: async (request) => {
      const { untagged, deleted, reclaimedBytes } = await images.prune(request);
      return { untagged: [...untagged], deleted: [...deleted], reclaimedBytes };
    },
  };
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
  return images.import(rest, first.reference === '' ? undefined : first.reference);
}

async function createImage(images: Images, requests: AsyncIterable<CreateImageRequest>): Promise<string> {
  const { first, rest } = await splitFirst(requests);
  const { reference, message, changes, platform } = first;
  return images.create(rest, {
    changes,
    ...(reference !== '' && { reference }),
    ...(message !== '' && { message }),
    ...(platform !== '' && { platform }),
  });
}
