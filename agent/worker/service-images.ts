// The images that services with tasks on this node need: of the specs they have now, of the one before, for a way back,
// and of every task that has not ended.

import type { ContainerSpec, Revision } from '../../core/generated/objects.ts';

// The current spec and the previous one.
const VERSIONS_KEPT = 2;

/** The image of the container, and those that are mounted into it. */
export function imagesOf({ image, mounts }: ContainerSpec): string[] {
  const mounted = mounts.filter(({ type }) => type === 'image').map(({ source }) => source);
  return [...new Set([image, ...mounted])];
}

export class ServiceImages {
  /** Images by spec version, of services with tasks here. */
  readonly #images = new Map<string, Map<number, readonly string[]>>();
  readonly #byRevision = new Map<string, readonly string[]>();
  /** Revisions that tasks here refer to, those that have ended included. */
  readonly #used = new Map<string, Revision>();

  /** A task of this revision came, with these images. */
  note(revision: Revision, taskImages: readonly string[]): void {
    const { id, serviceId, specVersion } = revision;
    this.#used.set(id, revision);
    const images = this.#images.get(serviceId) ?? new Map<number, readonly string[]>();
    const known = images.get(specVersion) ?? [];
    this.#images.set(serviceId, images.set(specVersion, [...new Set([...known, ...taskImages])]));
    this.#byRevision.set(id, [...new Set([...(this.#byRevision.get(id) ?? []), ...taskImages])]);
    const outdated = [...images.keys()].sort((a, b) => b - a).slice(VERSIONS_KEPT);
    for (const version of outdated) images.delete(version);
  }

  /** No task of this revision is left here. */
  forget(revisionId: string): void {
    const revision = this.#used.get(revisionId);
    if (revision === undefined) return;
    this.#used.delete(revisionId);
    this.#byRevision.delete(revisionId);
    const { serviceId } = revision;
    if (![...this.#used.values()].some((other) => other.serviceId === serviceId))
      this.#images.delete(serviceId);
  }

  /** `live`: revisions with tasks here that have not ended. */
  wanted(live: ReadonlySet<string>): string[] {
    const recent = [...this.#images.values()].flatMap((images) => [...images.values()].flat());
    return [...new Set([...recent, ...[...live].flatMap((id) => this.#byRevision.get(id) ?? [])])];
  }
}
