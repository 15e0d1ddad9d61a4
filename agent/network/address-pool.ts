// The addresses of one network on this node. An address is reused as late as possible: a peer may still hold
// connections to its last owner. To keep that across restarts without a write per container, the position is
// reserved in blocks: a restart goes on at the end of the reserved block.

import { SwarmError } from '../../core/errors.ts';
import { formatPrefix, type Prefix, prefixSize } from './ipv4.ts';

/** The network's own address, the gateway. */
const GATEWAY_OFFSET = 1;
const FIRST_OFFSET = 2;
const RESERVED_BLOCK = 64;

export interface AddressPoolOptions {
  readonly subnet: Prefix;
  /** Where an earlier pool's reservation ended. */
  readonly reservedUntil: number;
  /** Remembers that offsets below this one may be given out before the next call. */
  readonly saveReservation: (reservedUntil: number) => void;
}

export class AddressPool {
  readonly #subnet: Prefix;
  readonly #taken = new Set<number>();
  readonly #saveReservation: (reservedUntil: number) => void;
  #next: number;
  #reservedUntil: number;

  constructor(options: AddressPoolOptions) {
    this.#subnet = options.subnet;
    this.#saveReservation = options.saveReservation;
    this.#next = this.#isOffset(options.reservedUntil) ? options.reservedUntil : FIRST_OFFSET;
    this.#reservedUntil = this.#next;
  }

  /** Marks the address of an endpoint that exists. */
  adopt(address: number): void {
    this.#taken.add(address - this.#subnet.base);
  }

  allocate(): number {
    for (let attempts = this.#lastOffset(); attempts > 0; attempts--) {
      const offset = this.#advance();
      if (this.#taken.has(offset)) continue;
      this.#taken.add(offset);
      return this.#subnet.base + offset;
    }
    throw new SwarmError(
      'resource-exhausted',
      `network ${formatPrefix(this.#subnet)} has no free address on this node`,
    );
  }

  release(address: number): void {
    this.#taken.delete(address - this.#subnet.base);
  }

  #advance(): number {
    const offset = this.#next;
    if (offset >= this.#reservedUntil) {
      const end = Math.min(offset + RESERVED_BLOCK, this.#lastOffset() + 1);
      this.#saveReservation(end);
      this.#reservedUntil = end;
    }
    this.#next = offset + 1;
    if (!this.#isOffset(this.#next)) {
      this.#next = FIRST_OFFSET;
      this.#reservedUntil = FIRST_OFFSET;
    }
    return offset;
  }

  /** The one before the broadcast address. */
  #lastOffset(): number {
    return prefixSize(this.#subnet.length) - 2;
  }

  #isOffset(offset: number): boolean {
    return offset >= FIRST_OFFSET && offset <= this.#lastOffset();
  }
}

export function gatewayOf(subnet: Prefix): number {
  return subnet.base + GATEWAY_OFFSET;
}
