// Which service publishes which ingress port, and which number a service gets that names none. Pure.

import type { PortConfig, Service } from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { NotYet } from './not-yet.ts';

/** Where Swarm publishes ports that name no number. */
const FIRST_PORT = 30_000;
const LAST_PORT = 32_767;

export class PortBook {
  /** "tcp 8080 10.0.0.5" → service id. */
  readonly #owners = new Map<string, string>();
  #next = FIRST_PORT;

  /** Notes what a service has. */
  claim({ id, ports }: Pick<Service, 'id' | 'ports'>): void {
    for (const port of ports) if (isIngressPort(port)) this.#owners.set(keyOf(port), id);
  }

  release({ id, ports }: Service): void {
    for (const port of ports) if (this.#owners.get(keyOf(port)) === id) this.#owners.delete(keyOf(port));
  }

  /** The ports of its spec, each with a number. A number that was chosen before stays. Throws `NotYet`, and gives none then. */
  choose(service: Service): PortConfig[] {
    const before = service.ports.filter(isIngressPort);
    const ports = service.spec.endpoint.ports.map((port) => {
      if (!isIngressPort(port)) return port;
      const publishedPort = port.publishedPort || this.#numberFor(port, before, service.id);
      const chosen = { ...port, publishedPort };
      const owner = this.#owners.get(keyOf(chosen));
      if (owner !== undefined && owner !== service.id)
        throw new NotYet(`port ${publishedPort}/${port.protocol} is published by another service (${owner})`);
      return chosen;
    });
    this.claim({ id: service.id, ports });
    return ports;
  }

  #numberFor(port: PortConfig, before: readonly PortConfig[], serviceId: string): number {
    const earlier = before.find(
      ({ targetPort, protocol, publishedPort }) =>
        targetPort === port.targetPort &&
        protocol === port.protocol &&
        publishedPort >= FIRST_PORT &&
        publishedPort <= LAST_PORT,
    );
    if (
      earlier !== undefined &&
      this.#owners.get(keyOf({ ...port, publishedPort: earlier.publishedPort })) === serviceId
    )
      return earlier.publishedPort;
    for (let step = 0; step <= LAST_PORT - FIRST_PORT; step++) {
      const publishedPort = this.#next;
      this.#next = publishedPort === LAST_PORT ? FIRST_PORT : publishedPort + 1;
      if (!this.#owners.has(keyOf({ ...port, publishedPort }))) return publishedPort;
    }
    throw new NotYet(`all ports from ${FIRST_PORT} to ${LAST_PORT} are published; name another one`);
  }
}

function keyOf({ protocol, publishedPort, hostAddress, hostInterface }: PortConfig): string {
  return `${protocol} ${publishedPort} ${hostAddress}${hostInterface}`;
}
