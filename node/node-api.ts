// What operators ask of this machine: membership, and the local engine's images and volumes.

import type { VolumeSummary } from '../agent/engine/engine.ts';
import { parseJoinToken } from '../core/join-token.ts';
import type { InitResponse, NodeControlService, RestoreRequest, Volume } from '../proto/generated/node.ts';
import type { Handlers } from '../rpc/server.ts';
import type { Daemon } from './daemon.ts';
import { imageHandlers } from './image-api.ts';
import { splitFirst } from './upload.ts';

export function nodeHandlers(daemon: Daemon): Handlers<typeof NodeControlService> {
  const { volumes } = daemon.engine;
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
    ...imageHandlers(daemon.engine.images),
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

function toVolume({ isAnonymous, ...volume }: VolumeSummary): Volume {
  return { ...volume, anonymous: isAnonymous };
}
