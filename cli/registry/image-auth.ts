// The credentials for the registry of an image.

import type { RegistryAuth } from '../../core/generated/objects.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import type { Io } from '../io.ts';
import { findRegistryAuth } from './docker-config.ts';

/** As a field of a request: absent when there are none. */
export async function authFor(io: Io, image: string): Promise<{ readonly auth?: RegistryAuth }> {
  const auth = await findRegistryAuth(io, parseImageReference(image).registry);
  return auth === undefined ? {} : { auth };
}

/** For what is sent to the cluster. Nothing known is nothing sent, as in Docker: public images need nothing. */
export async function sentAuth(io: Io, image: string): Promise<{ readonly registryAuth?: RegistryAuth }> {
  const { auth } = await authFor(io, image);
  if (auth !== undefined) return { registryAuth: auth };
  const { registry } = parseImageReference(image);
  io.err(`no credentials are known for ${registry}: none are sent ("tsswarm login ${registry}")\n`);
  return {};
}
