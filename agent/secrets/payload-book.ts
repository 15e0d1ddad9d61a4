// The versions of secrets and configs that the managers have sent to this node. In memory only: a daemon that starts
// anew gets them again with its session.

import { SwarmError } from '../../core/errors.ts';
import type { FileReference } from '../../core/generated/objects.ts';
import type { PayloadKind } from '../../core/validate-payload.ts';
import type { NodePayload, Payloads } from '../../proto/generated/dispatcher.ts';

export class PayloadBook {
  readonly #byId = new Map<string, NodePayload>();
  #isComplete = false;

  /** Returns whose versions have changed. */
  hear({ complete, payloads, removedIds }: Payloads): Set<string> {
    if (complete) this.#byId.clear();
    this.#isComplete ||= complete;
    for (const payload of payloads) {
      if (payload.newest) this.#outdate(payload.sourceId);
      this.#byId.set(payload.id, payload);
    }
    for (const id of removedIds) this.#byId.delete(id);
    return new Set(payloads.map(({ sourceId }) => sourceId));
  }

  /** Throws `unavailable` while nobody has told, `not-found` when the managers do not have it. */
  get(kind: PayloadKind, { sourceId, sourceName, version }: FileReference): NodePayload {
    const found =
      version === 0
        ? [...this.#byId.values()].find((payload) => payload.sourceId === sourceId && payload.newest)
        : this.#byId.get(`${sourceId}.${version}`);
    if (found !== undefined) return found;
    const which = version === 0 ? '' : `version ${version} of `;
    if (this.#isComplete)
      throw new SwarmError('not-found', `${which}${kind} ${sourceName} is not there any more`);
    throw new SwarmError('unavailable', `${which}${kind} ${sourceName}: the managers have not sent it yet`);
  }

  #outdate(sourceId: string): void {
    for (const [id, payload] of this.#byId)
      if (payload.sourceId === sourceId && payload.newest) this.#byId.set(id, { ...payload, newest: false });
  }
}
