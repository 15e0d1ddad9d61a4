// The specs that are kept of a service: what they were, and the way back to one of them. Pure.

import { SwarmError } from '../../core/errors.ts';
import type { Revision, Service, SpecAuthor } from '../../core/generated/objects.ts';
import type { GetServiceResponse, ServiceHistoryResponse } from '../../proto/generated/control.ts';
import type { Caller } from '../../rpc/caller.ts';
import { revisionId, type TablesView } from '../store/tables.ts';
import { findService } from './find.ts';
import { specChanges } from './spec-changes.ts';

/** Whoever is at a manager's socket acts on that machine: its users are told apart. */
export function authorOf({ nodeId, userId }: Caller): SpecAuthor {
  return { nodeId, ...(userId !== undefined && { userId }) };
}

export function getService(view: TablesView, reference: string): GetServiceResponse {
  const service = findService(view, reference);
  const revision = view.revision.get(revisionId(service.id, service.specVersion));
  return { service, updatedBy: authorText(view, revision?.author) };
}

function authorText(view: TablesView, author: SpecAuthor | undefined): string {
  if (author === undefined) return '';
  const { nodeId, userId } = author;
  const host = view.node.get(nodeId)?.description.hostname || nodeId;
  return userId === undefined ? host : `uid ${userId} on ${host}`;
}

export function serviceHistory(view: TablesView, reference: string): ServiceHistoryResponse {
  const { id } = findService(view, reference);
  const revisions = keptRevisions(view, id);
  const versions = revisions.map(({ specVersion, meta, spec, author }, index) => {
    const before = revisions[index + 1];
    return {
      version: specVersion,
      createdAtMs: meta.createdAtMs,
      createdBy: authorText(view, author),
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
