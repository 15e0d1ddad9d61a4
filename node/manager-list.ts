// Which manager an agent dials: begins anywhere, so that agents spread, and goes on to the next when one fails.

import type { Random } from '../core/clock.ts';

export class ManagerList {
  #addresses: readonly string[];
  #position: number;

  constructor(addresses: readonly string[], random: Random) {
    this.#addresses = addresses;
    this.#position = Math.floor(random() * Math.max(1, addresses.length));
  }

  get addresses(): readonly string[] {
    return this.#addresses;
  }

  set(addresses: readonly string[]): void {
    this.#addresses = addresses;
  }

  /** Another one with each call; undefined when none is known. */
  next(): string | undefined {
    const address = this.#addresses[this.#position % Math.max(1, this.#addresses.length)];
    this.#position++;
    return address;
  }
}
