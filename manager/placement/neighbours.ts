// Which services want to share nodes and which do not, by their names, as operators write them.

import { type Affinity, parseAffinity } from '../../core/affinity.ts';
import type { Service } from '../../core/generated/objects.ts';

/** Ids of services; undefined: there is none of the name. */
export interface Neighbours {
  readonly together: readonly (string | undefined)[];
  readonly apart: readonly string[];
}

interface Wishes {
  /** What nodes must satisfy. */
  readonly required: Neighbours | undefined;
  /** What nodes that come first satisfy as well. */
  readonly preferred: Neighbours | undefined;
}

const NO_WISHES: Wishes = { required: undefined, preferred: undefined };

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

  /** Undefined is what makes no difference, whoever else is on a node. */
  of(id: string, affinities: readonly string[]): Wishes {
    if (affinities.length === 0 && this.#shunning.size === 0) return NO_WISHES;
    const name = this.#services.get(id)?.spec.name ?? '';
    const shunning = [...(this.#shunning.get(name) ?? [])].map((service) => service.id);
    const [preferred = [], required = []] = [true, false].map((isPreferred) =>
      affinities.map(parseAffinity).filter((affinity) => affinity.isPreferred === isPreferred),
    );
    return {
      required: this.#neighbours(required, shunning),
      preferred: this.#neighbours(preferred, []),
    };
  }

  #neighbours(affinities: readonly Affinity[], shunning: readonly string[]): Neighbours | undefined {
    if (affinities.length + shunning.length === 0) return undefined;
    const [wanted, shunned] = [true, false].map((isTogether) =>
      affinities
        .filter((affinity) => affinity.isTogether === isTogether)
        .map(({ service }) => this.#byName.get(service)?.id),
    );
    return { together: wanted ?? [], apart: [...(shunned ?? []).filter(isDefined), ...shunning] };
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
    .flatMap(({ service, isTogether, isPreferred }) => (isTogether || isPreferred ? [] : [service]));
}

function isDefined(id: string | undefined): id is string {
  return id !== undefined;
}
