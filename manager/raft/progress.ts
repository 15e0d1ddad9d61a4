// What a leader knows of one peer, and how much it may send to it.
//
//   probe      the peer's log end is unknown: one append at a time, moved back until it agrees
//   replicate  the peer agrees: appends are sent ahead of their answers, within a window of messages and bytes
//   snapshot   the peer needs entries that are compacted away: nothing is sent until it has the snapshot
//
//   probe ──accepted──▶ replicate ──refused, unreachable──▶ probe
//   probe, replicate ──compacted──▶ snapshot ──accepted or failed──▶ probe

import { assert } from '../../core/assert.ts';

export interface WindowLimits {
  readonly messagesMax: number;
  readonly bytesMax: number;
}

/** Appends sent and not yet answered, oldest first. */
class Window {
  readonly #limits: WindowLimits;
  #sent: { lastIndex: number; bytes: number }[] = [];
  #bytes = 0;

  constructor(limits: WindowLimits) {
    this.#limits = limits;
  }

  get isFull(): boolean {
    return this.#sent.length >= this.#limits.messagesMax || this.#bytes >= this.#limits.bytesMax;
  }

  get count(): number {
    return this.#sent.length;
  }

  add(lastIndex: number, bytes: number): void {
    this.#sent.push({ lastIndex, bytes });
    this.#bytes += bytes;
  }

  /** Frees everything up to `index`. */
  release(index: number): void {
    let count = 0;
    for (const { lastIndex, bytes } of this.#sent) {
      if (lastIndex > index) break;
      this.#bytes -= bytes;
      count++;
    }
    if (count > 0) this.#sent.splice(0, count);
  }

  clear(): void {
    this.#sent = [];
    this.#bytes = 0;
  }
}

export class Progress {
  state: 'probe' | 'replicate' | 'snapshot' = 'probe';
  /** The last index that the peer is known to have durable. */
  match = 0;
  /** The first index to send next. */
  next: number;
  /** The peer was heard since the last look of check-quorum. */
  isRecentlyActive = false;
  /** The same of the look before. */
  wasRecentlyActive = false;
  /** The commit index that the peer was last told. */
  sentCommit = 0;
  /** Set while state is snapshot: the index whose arrival ends it. */
  pendingSnapshot = 0;
  readonly #window: Window;
  /** Nothing more until the peer answers something. */
  #isPaused = false;

  constructor(next: number, limits: WindowLimits) {
    this.next = next;
    this.#window = new Window(limits);
  }

  get isPaused(): boolean {
    return this.state === 'snapshot' || this.#isPaused;
  }

  /** True when no entries may be added to what is on its way; an empty append may still go. */
  get isWindowFull(): boolean {
    return this.state === 'replicate' && this.#window.isFull;
  }

  get inFlight(): number {
    return this.#window.count;
  }

  becomeProbe(): void {
    // After a snapshot the peer has at least that much: begin there.
    this.next = Math.max(this.match + 1, this.state === 'snapshot' ? this.pendingSnapshot + 1 : 0);
    this.#reset('probe');
  }

  becomeReplicate(): void {
    this.next = this.match + 1;
    this.#reset('replicate');
  }

  becomeSnapshot(index: number): void {
    this.#reset('snapshot');
    this.pendingSnapshot = index;
  }

  /** The snapshot did not arrive: begin again from what is known. */
  failSnapshot(): void {
    assert(this.state === 'snapshot', 'no snapshot is under way');
    this.pendingSnapshot = 0;
    this.becomeProbe();
  }

  /** An append with `count` entries and this size has been sent, from `next` on. */
  sent(count: number, bytes: number): void {
    if (this.state === 'replicate') {
      if (count > 0) {
        this.next += count;
        this.#window.add(this.next - 1, bytes);
      }
      this.#isPaused = this.#window.isFull;
    } else if (count > 0) this.#isPaused = true;
  }

  /** The peer has everything up to `index`. Returns false for an old answer. */
  accepted(index: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    this.next = Math.max(this.next, index + 1);
    this.#isPaused = false;
    return true;
  }

  /** Frees the window up to an accepted index. */
  release(index: number): void {
    this.#window.release(index);
    if (!this.#window.isFull) this.#isPaused = false;
  }

  /**
   * The peer refused the append that follows `refused`; its log may agree at `hint`. Returns false for an old answer.
   */
  refused(refused: number, hint: number): boolean {
    if (this.state === 'replicate') {
      if (refused <= this.match) return false;
      this.next = this.match + 1;
      return true;
    }
    if (this.next - 1 !== refused) return false;
    this.next = Math.max(Math.min(refused, hint + 1), this.match + 1);
    this.#isPaused = false;
    return true;
  }

  /** Nothing more until a sign of life. */
  pause(): void {
    this.#isPaused = true;
  }

  /** A sign of life: what was held back may be tried again. */
  resume(): void {
    this.#isPaused = false;
  }

  #reset(state: Progress['state']): void {
    this.state = state;
    this.#isPaused = false;
    this.pendingSnapshot = 0;
    this.#window.clear();
  }
}
