// Who refers to which secret and config, and what references of a service mean in this cluster. Pure.

import { invalidField, SwarmError } from '../../core/errors.ts';
import type {
  Config,
  ContainerSpec,
  FileReference,
  Secret,
  Service,
  ServiceSpec,
} from '../../core/generated/objects.ts';
import type { PayloadKind } from '../../core/validate-payload.ts';
import { payloadId, type TablesView } from '../store/tables.ts';
import { findPayloadSource } from './find.ts';

/** The references of one kind. */
export function referencesOf(kind: PayloadKind, { task }: ServiceSpec): readonly FileReference[] {
  return kind === 'secret' ? task.container.secrets : task.container.configs;
}

export function hasFiles({ task: { container } }: ServiceSpec): boolean {
  return container.secrets.length + container.configs.length > 0;
}

/** With ids and names of what is referred to. Throws `not-found`, also for a version that is not kept. */
export function resolvedFiles(view: TablesView, container: ContainerSpec): ContainerSpec {
  return {
    ...container,
    secrets: container.secrets.map((reference) => resolved(view, 'secret', reference)),
    configs: container.configs.map((reference) => resolved(view, 'config', reference)),
  };
}

function resolved(view: TablesView, kind: PayloadKind, reference: FileReference): FileReference {
  const { id, spec } = findPayloadSource(view, kind, reference.sourceId);
  const { version } = reference;
  if (version !== 0 && view.payload.get(payloadId(id, version)) === undefined) {
    const kept = view.payloadsOf(id).map((payload) => payload.version);
    throw new SwarmError('not-found', `${kind} ${spec.name} has no version ${version}`, {
      hint: `Kept are ${kept.sort((a, b) => a - b).join(', ')}.`,
    });
  }
  return { ...reference, sourceId: id, sourceName: spec.name };
}

/** Services that have it in their spec, or go back to one that has when their update fails. */
export function usersOf(view: TablesView, kind: PayloadKind, id: string): Service[] {
  return [...view.service.values()].filter(({ spec, previousSpec, updateStatus }) => {
    const specs = updateStatus?.state === 'updating' && previousSpec ? [spec, previousSpec] : [spec];
    return specs.some((candidate) => referencesOf(kind, candidate).some(({ sourceId }) => sourceId === id));
  });
}

/** Throws `failed-precondition` that names who needs it. */
export function requireUnused(view: TablesView, kind: PayloadKind, { id, spec }: Secret | Config): void {
  const names = usersOf(view, kind, id).map((service) => service.spec.name);
  if (names.length === 0) return;
  const services = names.length === 1 ? 'service' : 'services';
  throw new SwarmError(
    'failed-precondition',
    `${kind} '${spec.name}' is in use by the following ${services}: ${names.sort().join(', ')}`,
    { hint: `Take it from them first: "tsswarm service update --${kind}-rm ${spec.name} SERVICE".` },
  );
}

/** A change of what is fixed is refused. */
export function requireSameSource(kind: PayloadKind, before: Secret | Config, after: Secret['spec']): void {
  if (after.name !== before.spec.name)
    throw invalidField('name', `${kind} ${before.spec.name} cannot be renamed to ${after.name}`);
  if (after.templateDriver !== before.spec.templateDriver)
    throw invalidField('template-driver', `that of ${kind} ${before.spec.name} cannot be changed`);
}
