// What a simulated machine has of secrets, configs and credentials: the real book. Its files are no more than which versions
// they are of.

import { PayloadBook } from '../../agent/secrets/payload-book.ts';
import { wantedFiles } from '../../agent/worker/task-secrets.ts';
import { hasCode } from '../../core/errors.ts';
import type { FileVersion, Revision } from '../../core/generated/objects.ts';
import type { Payloads } from '../../proto/generated/dispatcher.ts';

export class SimFiles {
  readonly #book = new PayloadBook();
  /** Ids of what the managers have sent and not taken back. */
  readonly held = new Set<string>();

  /** Returns whose versions have changed. */
  hear(payloads: Payloads): Set<string> {
    if (payloads.complete) this.held.clear();
    for (const { id } of payloads.payloads) this.held.add(id);
    for (const id of payloads.removedIds) this.held.delete(id);
    return this.#book.hear(payloads);
  }

  /** What a container is started with. Throws as the book does. */
  make(revision: Revision): FileVersion[] {
    if (revision.registryAuth) this.#book.registryAuth(revision);
    return wantedFiles(revision.spec.task.container).map(({ kind, reference }) =>
      this.#book.versionOf(kind, reference),
    );
  }

  /** What it has after a new version came; what is not there any more stays as it is. */
  refresh({ spec }: Revision, files: readonly FileVersion[]): FileVersion[] {
    return files.map((file, at) => {
      const wanted = wantedFiles(spec.task.container)[at];
      try {
        return wanted === undefined ? file : this.#book.versionOf(wanted.kind, wanted.reference);
      } catch (error) {
        if (hasCode(error, 'not-found')) return file;
        throw error;
      }
    });
  }
}
