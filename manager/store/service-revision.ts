// A service's revisions and what their images are pulled with: written by whoever gives a service another spec. The
// credentials are a Payload beside the revision, so that no list, watch or answer about services can have them.

import { emptyMeta, type RegistryAuth, type Service, type SpecAuthor } from '../../core/generated/objects.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import { RegistryAuthCodec } from '../../proto/generated/objects.ts';
import { decode, encode } from '../../proto/wire.ts';
import { revisionId, type TablesView } from './tables.ts';
import type { Transaction } from './transaction.ts';

/** What the image of this spec of a service is pulled with. */
export function registryAuthOf(
  view: TablesView,
  serviceId: string,
  specVersion: number,
): RegistryAuth | undefined {
  const payload = view.payload.get(revisionId(serviceId, specVersion));
  return payload && decode(RegistryAuthCodec, payload.data);
}

/**
 * Stores the service's spec as a revision. Credentials of another registry than the image's are left behind. No author: the
 * managers themselves.
 */
export function createRevision(
  tx: Transaction,
  { id: serviceId, specVersion, spec }: Service,
  auth: RegistryAuth | undefined,
  author?: SpecAuthor,
): void {
  const id = revisionId(serviceId, specVersion);
  const registryAuth = auth?.registry === parseImageReference(spec.task.container.image).registry;
  const revision = { id, meta: emptyMeta, serviceId, specVersion, spec, registryAuth };
  tx.create('revision', { ...revision, ...(author && { author }) });
  if (auth === undefined || !registryAuth) return;
  const data = encode(RegistryAuthCodec, auth);
  tx.create('payload', { id, meta: emptyMeta, sourceId: serviceId, version: specVersion, data });
}
