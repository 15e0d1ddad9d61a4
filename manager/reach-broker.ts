// Joins an operator's stream with that of the agent whose task it is about. Nothing is kept in between: each side is read
// when the other has room. Only the leader has sessions, so a change of leaders ends every stream.

import type { Clock } from '../core/clock.ts';
import { SwarmError } from '../core/errors.ts';
import { newId, type RandomBytes } from '../core/ids.ts';
import type { ReachInput, ReachOrder, ReachOutput, ReachRequest } from '../proto/generated/reach.ts';

interface Line {
  readonly nodeId: string;
  readonly inputs: AsyncIterable<ReachInput>;
  /** Resolves with what the agent says. */
  readonly answered: PromiseWithResolvers<AsyncIterable<ReachOutput>>;
  readonly over: AbortController;
}

// An agent opens its stream at once; starting what was asked for comes after.
const ANSWER_LIMIT_MS = 10_000;

export class ReachBroker {
  readonly #clock: Clock;
  readonly #randomBytes: RandomBytes;
  readonly #nodes = new Map<string, (order: ReachOrder) => void>();
  readonly #lines = new Map<string, Line>();

  constructor(clock: Clock, randomBytes: RandomBytes) {
    this.#clock = clock;
    this.#randomBytes = randomBytes;
  }

  /** Streams that are open. */
  get size(): number {
    return this.#lines.size;
  }

  /** A node's session begins; the returned function ends it. */
  addNode(nodeId: string, send: (order: ReachOrder) => void): () => void {
    this.#nodes.set(nodeId, send);
    return () => {
      if (this.#nodes.get(nodeId) === send) this.#nodes.delete(nodeId);
      for (const line of this.#lines.values()) if (line.nodeId === nodeId) line.over.abort(lost(nodeId));
    };
  }

  /**
   * What the agent answers to a request, until the signal aborts; `inputs` are what the operator says after it. Throws `unavailable` when the node has
   * no session or loses it, `deadline-exceeded` when it does not answer.
   */
  async *open(
    nodeId: string,
    request: ReachRequest,
    inputs: AsyncIterable<ReachInput>,
    signal: AbortSignal,
  ): AsyncGenerator<ReachOutput, void, undefined> {
    const send = this.#nodes.get(nodeId);
    if (send === undefined) throw new SwarmError('unavailable', `node ${nodeId} is not connected`);
    const id = newId(this.#randomBytes);
    const line: Line = { nodeId, inputs, answered: Promise.withResolvers(), over: new AbortController() };
    this.#lines.set(id, line);
    const cancel = this.#clock.after(ANSWER_LIMIT_MS, () =>
      line.over.abort(
        new SwarmError('deadline-exceeded', `node ${nodeId} did not answer within ${ANSWER_LIMIT_MS} ms`),
      ),
    );
    const onGone = () => line.over.abort(new SwarmError('cancelled', 'the operator has left'));
    signal.addEventListener('abort', onGone, { once: true });
    try {
      signal.throwIfAborted();
      send({ id, request });
      const outputs = await untilAborted(line.answered.promise, line.over.signal);
      cancel();
      for await (const output of readUntil(outputs, line.over.signal)) {
        yield output;
        if (output.ended !== undefined) return;
      }
      throw lost(nodeId);
    } finally {
      cancel();
      signal.removeEventListener('abort', onGone);
      this.#lines.delete(id);
      onGone();
    }
  }

  /** An agent's stream: returns what its operator says. Throws `not-found` when nobody waits for it. */
  async *answer(nodeId: string, outputs: AsyncIterable<ReachOutput>): AsyncIterable<ReachInput> {
    const incoming = outputs[Symbol.asyncIterator]();
    const first = await incoming.next();
    const id = first.done ? '' : first.value.reachId;
    const line = this.#lines.get(id);
    if (line === undefined || line.nodeId !== nodeId)
      throw new SwarmError('not-found', `nobody waits for an answer ${id} of node ${nodeId}`);
    line.answered.resolve({ [Symbol.asyncIterator]: () => incoming });
    try {
      yield* readUntil(line.inputs, line.over.signal);
      // The operator says no more, but hears what is still to come.
      await untilAborted(new Promise<never>(() => {}), line.over.signal);
    } catch (error) {
      if (line.over.signal.reason !== error) throw error;
    }
  }
}

function lost(nodeId: string): SwarmError {
  return new SwarmError(
    'unavailable',
    `the way to node ${nodeId} is lost: what was begun there has been ended`,
    { hint: 'The node has lost its session, or the managers have changed their leader. Try again.' },
  );
}

/** Ends with the signal's reason thrown, even while the source says nothing. */
async function* readUntil<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const iterator = source[Symbol.asyncIterator]();
  for (;;) {
    const next = await untilAborted(iterator.next(), signal);
    if (next.done) return;
    yield next.value;
  }
}

async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  // Whichever loses the race must not end the process.
  promise.catch(() => {});
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
