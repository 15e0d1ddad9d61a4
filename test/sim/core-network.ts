// The wire between simulated members: messages in no order, some held back for long, links that let nothing through
// in one direction or both.

import type { RaftMessage } from '../../proto/generated/raft.ts';
import type { SimSnapshot } from './core-member.ts';

export const IDS_MAX = 16;
const STRIDE = IDS_MAX + 1;
/** Held messages beyond this go back among the others. */
const HELD_MAX = 40;

/** A message on its way; a snapshot travels with its content. */
export interface Posted {
  readonly message: RaftMessage;
  readonly content: SimSnapshot | undefined;
}

export class Network {
  #messages: Posted[] = [];
  #held: Posted[] = [];
  readonly #isBlocked = new Uint8Array(STRIDE * STRIDE);

  get length(): number {
    return this.#messages.length;
  }

  post(posted: Posted): void {
    this.#messages.push(posted);
  }

  at(position: number): Posted {
    return this.#messages[position] as Posted;
  }

  /** Takes a message out; the last one takes its place. */
  remove(position: number): void {
    const last = this.#messages.pop() as Posted;
    if (position < this.#messages.length) this.#messages[position] = last;
  }

  /** Position of some message that fits, or -1. */
  find(fits: (message: RaftMessage) => boolean): number {
    return this.#messages.findIndex(({ message }) => fits(message));
  }

  takeAll(): readonly Posted[] {
    const messages = this.#messages;
    this.#messages = [];
    return messages;
  }

  /** Keeps a message back until `release`: by then the world has moved on. */
  hold(posted: Posted): void {
    this.#held.push(posted);
    if (this.#held.length > HELD_MAX) this.release(1);
  }

  /** Keeps back what is on its way to a member. */
  holdAllTo(id: number): void {
    const staying = this.#messages.filter(({ message }) => message.to !== id);
    this.#held.push(...this.#messages.filter(({ message }) => message.to === id));
    this.#messages = staying;
  }

  /** Lets the oldest `count` held messages go on. */
  release(count: number): void {
    this.#messages.push(...this.#held.splice(0, count));
  }

  isBlocked(from: number, to: number): boolean {
    return this.#isBlocked[from * STRIDE + to] === 1;
  }

  block(from: number, to: number): void {
    this.#isBlocked[from * STRIDE + to] = 1;
  }

  /** All links work again. */
  unblock(): void {
    this.#isBlocked.fill(0);
  }
}
