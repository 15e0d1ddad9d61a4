// The last commits, so that a watcher whose connection broke goes on where it was.

import type { Commit } from './store.ts';

// At a hundred commits a second, ten seconds: a reconnect, not an absence.
const KEPT_MAX = 1_000;

export class RecentCommits {
  #commits: Commit[] = [];
  /** Commits up to this index are not here. */
  forgottenIndex = 0;

  push(commit: Commit): void {
    this.#commits.push(commit);
    if (this.#commits.length < 2 * KEPT_MAX) return;
    this.forgottenIndex = this.#commits[KEPT_MAX - 1]?.index ?? commit.index;
    this.#commits = this.#commits.slice(KEPT_MAX);
  }

  after(index: number): readonly Commit[] {
    const first = this.#commits.findIndex((commit) => commit.index > index);
    return first < 0 ? [] : this.#commits.slice(first);
  }

  /** A snapshot took the place of everything up to `index`. */
  clear(index: number): void {
    this.#commits = [];
    this.forgottenIndex = index;
  }
}
