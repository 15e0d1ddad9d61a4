// The certificate of this node, as it is now. The daemon renews it while the manager runs.

import { defined } from '../core/assert.ts';
import type { TlsIdentity } from '../rpc/tls.ts';

export class IdentityHolder {
  #current: TlsIdentity | undefined;
  readonly #listeners = new Set<(identity: TlsIdentity) => void>();

  constructor(current?: TlsIdentity) {
    this.#current = current;
  }

  /** A manager without one talks to nobody: it has to be there before there is anybody to talk to. */
  get current(): TlsIdentity {
    return defined(this.#current, 'a certificate');
  }

  get isEmpty(): boolean {
    return this.#current === undefined;
  }

  set(identity: TlsIdentity): void {
    this.#current = identity;
    for (const listener of this.#listeners) listener(identity);
  }

  /** Calls back with the identity that is there and with each that follows. Returns how to stop that. */
  follow(listener: (identity: TlsIdentity) => void): () => void {
    this.#listeners.add(listener);
    if (this.#current !== undefined) listener(this.#current);
    return () => this.#listeners.delete(listener);
  }
}
