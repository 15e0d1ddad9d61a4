// Pins an image to the digest that its registry has now, as Docker's client does before it sends a spec.

import type { ServiceSpec } from '../core/generated/objects.ts';
import type { Connection } from './connection.ts';
import type { Io } from './io.ts';
import { authFor } from './registry/image-auth.ts';

// A registry that does not answer must not hold up the command for long.
const RESOLVE_LIMIT_MS = 10_000;

/** The spec with digest and platforms; unchanged, after a warning, when the registry does not tell. */
export async function pinImage(spec: ServiceSpec, connection: Connection, io: Io): Promise<ServiceSpec> {
  const { image, pullPolicy } = spec.task.container;
  // What is never pulled is meant as it lies on the nodes.
  if (image.includes('@') || pullPolicy === 'never') return spec;
  try {
    const node = await connection.node();
    const auth = await authFor(io, image);
    const { digest, platforms } = await node.resolveImage(
      { reference: image, ...auth },
      { timeoutMs: RESOLVE_LIMIT_MS },
    );
    return {
      ...spec,
      task: {
        ...spec.task,
        container: { ...spec.task.container, image: `${image}@${digest}` },
        placement: { ...spec.task.placement, platforms },
      },
    };
  } catch {
    io.err(
      `image ${image} could not be accessed on a registry to record\nits digest. Each node will access ${image} independently,\npossibly leading to different nodes running different\nversions of the image.\n\n`,
    );
    return spec;
  }
}
