// Published ports of the node-local network, held at the host for both families.

import { SwarmError } from '../../core/errors.ts';
import type { PortConfig } from '../../core/generated/objects.ts';
import { isIpv6InKernel } from './ipv6-link.ts';
import { type HeldPort, holdPort, releasePort } from './port-holder.ts';
import { relayPort } from './port-relay.ts';

export interface HostPortHold extends Disposable {
  readonly port: number;
}

/** Free ports of IPv4 that somebody has by IPv6, before one that nobody has. */
const ATTEMPTS_MAX = 64;

/**
 * Holds a published port; 0 takes a free one. With `isIpv6Published` nobody else may have it by IPv6 either; without, what
 * reaches it by IPv6 is relayed unless somebody has it. `failed-precondition` when it cannot be held.
 */
export function holdPublished(
  { protocol, publishedPort }: Pick<PortConfig, 'protocol' | 'publishedPort'>,
  isIpv6Published: boolean,
): HostPortHold {
  for (let attempt = 1; ; attempt++) {
    const held = holdPort(protocol, publishedPort);
    try {
      return withRelay(held, isIpv6Published);
    } catch (error) {
      releasePort(held);
      const isAnother = isTaken(error) && publishedPort === 0 && attempt < ATTEMPTS_MAX;
      if (!isAnother) throw error;
    }
  }
}

/** All or none. */
export function holdAllPublished(ports: readonly PortConfig[], isIpv6Published: boolean): HostPortHold[] {
  using held = new DisposableStack();
  const holds = ports.map((port) => held.use(holdPublished(port, isIpv6Published)));
  held.move();
  return holds;
}

/** Somebody has the port: another error is none that holding ports is expected to have. */
export function isTaken(error: unknown): boolean {
  return error instanceof SwarmError && error.code === 'failed-precondition';
}

function withRelay(held: HeldPort, isIpv6Published: boolean): HostPortHold {
  const relay = isIpv6InKernel() ? tryRelay(held, isIpv6Published) : undefined;
  return {
    port: held.port,
    [Symbol.dispose]: () => {
      relay?.[Symbol.dispose]();
      releasePort(held);
    },
  };
}

function tryRelay({ protocol, port }: HeldPort, isIpv6Published: boolean): Disposable | undefined {
  try {
    return relayPort(protocol, port);
  } catch (error) {
    if (isIpv6Published || !isTaken(error)) throw error;
    return undefined;
  }
}
