// The last commits, so that a watcher whose connection broke goes on where it was.

import type { Commit } from './store.ts';

// At a hundred commits a second, ten seconds: a reconnect, not an absence.
const KEPT_MAX = 1_000;
// And so many changes, each of which holds an object as it was and as it came to be: some five megabytes of tasks.
const CHANGES_KEPT_MAX = 5_000;

export class RecentCommits {
  #commits: Commit[] = [];
  #changes = 0;
  /** Commits up to this index are not here. */
  forgottenIndex = 0;

  push(commit: Commit): void {
    this.#commits.push(commit);
    this.#changes += commit.events.length;
    if (this.#commits.length < 2 * KEPT_MAX && this.#changes < 2 * CHANGES_KEPT_MAX) return;
    let forgotten = 0;
    while (this.#commits.length - forgotten > KEPT_MAX || this.#changes > CHANGES_KEPT_MAX) {
      const oldest = this.#commits[forgotten++];
      this.#changes -= oldest?.events.length ?? 0;
      this.forgottenIndex = oldest?.index ?? commit.index;
    }
    this.#commits = this.#commits.slice(forgotten);
  }

  after(index: number): readonly Commit[] {
    const first = this.#commits.findIndex((commit) => commit.index > index);
    return first < 0 ? [] : this.#commits.slice(first);
  }

  /** A snapshot took the place of everything up to `index`. */
  clear(index: number): void {
    this.#commits = [];
    this.#changes = 0;
    this.forgottenIndex = index;
  }
}
