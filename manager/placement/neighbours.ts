// Which services want to share nodes and which do not, by their names, as operators write them.

import { parseAffinity } from '../../core/affinity.ts';
import type { Service } from '../../core/generated/objects.ts';

/** Ids of services; undefined: there is none of the name. */
export interface Neighbours {
  readonly together: readonly (string | undefined)[];
  readonly apart: readonly string[];
}

export class Neighbourhood {
  readonly #services = new Map<string, Service>();
  readonly #byName = new Map<string, Service>();
  /** Who does not want to share nodes with the service of a name. */
  readonly #shunning = new Map<string, Set<Service>>();

  /** undefined: it is no more. True when it may make a difference to others. */
  note(id: string, service: Service | undefined): boolean {
    const before = this.#services.get(id);
    if (before !== undefined) this.#remove(before);
    if (service !== undefined) this.#add(service);
    const wishesOf = (each: Service | undefined) => each?.spec.task.placement.affinities.join('\n') ?? '';
    return before?.spec.name !== service?.spec.name || wishesOf(before) !== wishesOf(service);
  }

  /** Undefined when it makes no difference who else is on a node. */
  of(id: string, affinities: readonly string[]): Neighbours | undefined {
    const name = this.#services.get(id)?.spec.name ?? '';
    const shunning = this.#shunning.get(name);
    if (affinities.length === 0 && shunning === undefined) return undefined;
    const wishes = affinities.map(parseAffinity);
    const shunned = wishes.flatMap(({ service, isTogether }) =>
      isTogether ? [] : (this.#byName.get(service)?.id ?? []),
    );
    return {
      together: wishes
        .filter(({ isTogether }) => isTogether)
        .map(({ service }) => this.#byName.get(service)?.id),
      apart: [...shunned, ...[...(shunning ?? [])].map((service) => service.id)],
    };
  }

  #add(service: Service): void {
    this.#services.set(service.id, service);
    this.#byName.set(service.spec.name, service);
    for (const name of shunnedBy(service)) {
      const shunning = this.#shunning.get(name) ?? new Set();
      this.#shunning.set(name, shunning.add(service));
    }
  }

  #remove(service: Service): void {
    this.#services.delete(service.id);
    if (this.#byName.get(service.spec.name) === service) this.#byName.delete(service.spec.name);
    for (const name of shunnedBy(service)) {
      const shunning = this.#shunning.get(name);
      shunning?.delete(service);
      if (shunning?.size === 0) this.#shunning.delete(name);
    }
  }
}

function shunnedBy({ spec }: Service): string[] {
  return spec.task.placement.affinities
    .map(parseAffinity)
    .flatMap(({ service, isTogether }) => (isTogether ? [] : [service]));
}
