// Asks agents about their networks over their sessions, and brings the answers to who asked.

import type { Clock } from '../core/clock.ts';
import { SwarmError } from '../core/errors.ts';
import { newId, type RandomBytes } from '../core/ids.ts';
import type { NetworkAnswer, NetworkFinding, NetworkQuestion } from '../proto/generated/dispatcher.ts';

interface Waiting {
  readonly nodeId: string;
  readonly resolve: (findings: readonly NetworkFinding[]) => void;
  readonly reject: (error: SwarmError) => void;
}

// A node probes all tasks of a service at once, each within a second.
const LIMIT_MS = 5_000;

export class NodeQuestions {
  readonly #clock: Clock;
  readonly #randomBytes: RandomBytes;
  readonly #nodes = new Map<string, (question: NetworkQuestion) => void>();
  readonly #waiting = new Map<string, Waiting>();

  constructor(clock: Clock, randomBytes: RandomBytes) {
    this.#clock = clock;
    this.#randomBytes = randomBytes;
  }

  /** A node's session begins; the returned function ends it. */
  addNode(nodeId: string, send: (question: NetworkQuestion) => void): () => void {
    this.#nodes.set(nodeId, send);
    return () => {
      if (this.#nodes.get(nodeId) !== send) return;
      this.#nodes.delete(nodeId);
      for (const waiting of this.#waiting.values())
        if (waiting.nodeId === nodeId) waiting.reject(new SwarmError('unavailable', 'the node has gone'));
    };
  }

  /** Throws `unavailable` when the node has no session, `deadline-exceeded` when it does not answer. */
  ask(nodeId: string, question: Omit<NetworkQuestion, 'id'>): Promise<readonly NetworkFinding[]> {
    const send = this.#nodes.get(nodeId);
    if (send === undefined) return Promise.reject(new SwarmError('unavailable', 'the node is not connected'));
    const id = newId(this.#randomBytes);
    const { promise, resolve, reject } = Promise.withResolvers<readonly NetworkFinding[]>();
    const cancel = this.#clock.after(LIMIT_MS, () =>
      reject(new SwarmError('deadline-exceeded', `the node did not answer within ${LIMIT_MS} ms`)),
    );
    this.#waiting.set(id, { nodeId, resolve, reject });
    send({ ...question, id });
    return promise.finally(() => {
      cancel();
      this.#waiting.delete(id);
    });
  }

  /** An answer that nobody waits for any more is dropped, as is one of another node than the asked one. */
  answer(nodeId: string, { id, findings }: NetworkAnswer): void {
    const waiting = this.#waiting.get(id);
    if (waiting?.nodeId === nodeId) waiting.resolve(findings);
  }
}
