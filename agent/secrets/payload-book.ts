// The versions of secrets and configs, and the credentials, that the managers have sent to this node. In memory only: a daemon that starts
// anew gets them again with its session.

import { SwarmError } from '../../core/errors.ts';
import type { FileReference, FileVersion, RegistryAuth, Revision } from '../../core/generated/objects.ts';
import type { PayloadKind } from '../../core/validate-payload.ts';
import type { NodePayload, Payloads } from '../../proto/generated/dispatcher.ts';
import { RegistryAuthCodec } from '../../proto/generated/objects.ts';
import { decode } from '../../proto/wire.ts';

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

  /** What a file that is made now is of. Throws as `get` does. */
  versionOf(kind: PayloadKind, reference: FileReference): FileVersion {
    const { sourceId, version } = this.get(kind, reference);
    return { sourceId, version };
  }

  /** What the image of a revision is pulled with. Throws as `get` does. */
  registryAuth({ id, spec }: Revision): RegistryAuth {
    const payload = this.#byId.get(id);
    if (payload !== undefined) return decode(RegistryAuthCodec, payload.data);
    const what = `credentials for ${spec.task.container.image}`;
    if (this.#isComplete) throw new SwarmError('not-found', `the ${what} are not there any more`);
    throw new SwarmError('unavailable', `${what}: the managers have not sent them yet`);
  }

  #outdate(sourceId: string): void {
    for (const [id, payload] of this.#byId)
      if (payload.sourceId === sourceId && payload.newest) this.#byId.set(id, { ...payload, newest: false });
  }
}
