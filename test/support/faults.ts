// Makes a fake engine and network unreliable: operations are slow, fail as if containerd were away, or fail after
// they have had their effect. Everything is drawn from one seeded source.

import { setTimeout as delay } from 'node:timers/promises';
import { SwarmError } from '../../core/errors.ts';
import type { FakeEngine, FakeNetwork } from './fake-engine.ts';

export type Chance = () => number;

/** Mulberry32: small, and good enough to pick faults. */
export function seededChance(seed: number): Chance {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Faults {
  /** Part of the operations that fail. */
  failureRatio: number;
  /** Part of the operations that take their time. */
  slowRatio: number;
}

const SLOW_MS = 40;
const CONTAINER_OPERATIONS = ['create', 'start', 'wait', 'stop', 'remove', 'inspect'] as const;
const NETWORK_OPERATIONS = ['attach', 'detach', 'drain'] as const;

/** From now on operations go wrong as `faults` says; it may be changed at any time. */
export function injectFaults(engine: FakeEngine, network: FakeNetwork, chance: Chance, faults: Faults): void {
  const away = () => new SwarmError('unavailable', 'containerd is away');
  const spoil = (target: object, name: string) => {
    const operation = (target as Record<string, (...args: unknown[]) => Promise<unknown>>)[name];
    Object.assign(target, {
      [name]: async (...args: unknown[]) => {
        if (chance() < faults.slowRatio) await delay(chance() * SLOW_MS);
        const isFailing = chance() < faults.failureRatio;
        if (isFailing && chance() < 0.5) throw away();
        const result = await operation?.apply(target, args);
        if (chance() < faults.slowRatio) await delay(chance() * SLOW_MS);
        // The answer is lost, not the effect.
        if (isFailing) throw away();
        return result;
      },
    });
  };
  for (const name of CONTAINER_OPERATIONS) spoil(engine.containers, name);
  for (const name of NETWORK_OPERATIONS) spoil(network, name);
}
