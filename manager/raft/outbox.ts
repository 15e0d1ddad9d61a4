// What a member is about to say and to write, and which of the first has to wait for the second.

import type { HardState, RaftMessage, SnapshotMark } from '../../proto/generated/raft.ts';
import type { Append } from './contract.ts';
import type { MemberId } from './message.ts';
import type { Attestation, RaftLog } from './raft-log.ts';

interface PendingAppend extends Append {
  readonly attestation: Attestation;
  /** Answers that are true only once this append is durable. */
  readonly releases: readonly RaftMessage[];
}

export class Outbox {
  #messages: RaftMessage[] = [];
  #releases: RaftMessage[] = [];
  #written: HardState;
  #isCommitNeeded = false;
  #snapshot: SnapshotMark | undefined;
  #snapshotsInFlight = 0;

  constructor(written: HardState) {
    this.#written = written;
  }

  /** True until a snapshot that replaces the log is durable. */
  get isInstalling(): boolean {
    return this.#snapshot !== undefined || this.#snapshotsInFlight > 0;
  }

  /** Leaves at once: for what is true whether or not anything is written. */
  send(message: RaftMessage): void {
    this.#messages.push(message);
  }

  /** Leaves when everything up to now is durable: votes and acknowledgements. */
  sendWhenDurable(message: RaftMessage): void {
    this.#releases.push(message);
  }

  install(snapshot: SnapshotMark): void {
    this.#snapshot = snapshot;
  }

  /** The commit index goes along with other writes; alone it is worth one only after a change of configuration. */
  rememberCommit(): void {
    this.#isCommitNeeded = true;
  }

  takeMessages(): readonly RaftMessage[] {
    const messages = this.#messages;
    this.#messages = [];
    return messages;
  }

  /** All that has to be written now, or undefined. */
  takeAppend(log: RaftLog, hardState: HardState): Append | undefined {
    const isNewTerm = hardState.term !== this.#written.term || hardState.vote !== this.#written.vote;
    const hasContent =
      isNewTerm || this.#isCommitNeeded || this.#snapshot !== undefined || log.hasUnwritten();
    if (!hasContent && this.#releases.length === 0) return undefined;
    const append: PendingAppend = {
      ...log.takeAppend(),
      hardState: hasContent ? hardState : undefined,
      snapshot: this.#snapshot,
      releases: this.#releases,
    };
    if (hasContent) this.#written = hardState;
    if (this.#snapshot !== undefined) this.#snapshotsInFlight++;
    this.#isCommitNeeded = false;
    this.#snapshot = undefined;
    this.#releases = [];
    return append;
  }

  /** An append is durable: what waited for it leaves. Returns what this member says to itself. */
  persisted(append: Append, log: RaftLog, self: MemberId): readonly RaftMessage[] {
    const { attestation, releases, snapshot } = append as PendingAppend;
    log.persisted(attestation);
    if (snapshot !== undefined) this.#snapshotsInFlight--;
    for (const message of releases) if (message.to !== self) this.#messages.push(message);
    return releases.filter((message) => message.to === self);
  }
}
