// The specs that are kept of a service: what they were, and the way back to one of them. Pure.

import { SwarmError } from '../../core/errors.ts';
import type { Revision, Service } from '../../core/generated/objects.ts';
import type { ServiceHistoryResponse } from '../../proto/generated/control.ts';
import type { TablesView } from '../store/tables.ts';
import { findService } from './find.ts';
import { specChanges } from './spec-changes.ts';

export function serviceHistory(view: TablesView, reference: string): ServiceHistoryResponse {
  const { id } = findService(view, reference);
  const revisions = keptRevisions(view, id);
  const versions = revisions.map(({ specVersion, meta, spec }, index) => {
    const before = revisions[index + 1];
    return {
      version: specVersion,
      createdAtMs: meta.createdAtMs,
      changes: before === undefined ? [] : specChanges(before.spec, spec),
    };
  });
  return { serviceId: id, versions };
}

/** The spec to go back to. Throws `not-found` when it is not kept, `failed-precondition` when it is the current one. */
export function revisionToReturnTo(
  view: TablesView,
  { id, spec, specVersion }: Service,
  version: number,
): Revision {
  if (version === specVersion)
    throw new SwarmError('failed-precondition', `to: service ${spec.name} has version ${version} already`);
  const kept = keptRevisions(view, id);
  const found = kept.find((revision) => revision.specVersion === version);
  if (found !== undefined) return found;
  const others = kept.map((revision) => revision.specVersion).filter((other) => other !== specVersion);
  throw new SwarmError('not-found', `to: version ${version} of service ${spec.name} is not kept`, {
    hint:
      others.length === 0
        ? 'There is no other version than the current one.'
        : `These are: ${others.join(', ')} (tsswarm service history ${spec.name}).`,
  });
}

/** The newest first. */
function keptRevisions(view: TablesView, serviceId: string): Revision[] {
  return [...view.revisionsOfService(serviceId)].sort((a, b) => b.specVersion - a.specVersion);
}
