// Answers the managers' orders to do something inside a task: opens a stream of its own for each, which is the operator's line
// to the task. When it breaks, what was begun ends.

import { messageOf, SwarmError, toSwarmError } from '../../core/errors.ts';
import type { DispatcherService } from '../../proto/generated/dispatcher.ts';
import {
  emptyReachEnd,
  emptyReachOutput,
  type ReachEnd,
  type ReachInput,
  type ReachOrder,
  type ReachOutput,
  type ReachRequest,
} from '../../proto/generated/reach.ts';
import type { Client } from '../../rpc/client.ts';
import { sessionLog } from '../log.ts';

/** The operator, as a task sees it. */
export interface ReachLine {
  /** What the operator says; its end is the operator's leaving. */
  readonly inputs: AsyncIterable<ReachInput>;
  /** Resolves when the line has room for more. Rejects when the operator has left. */
  send(output: Partial<ReachOutput>): Promise<void>;
}

/** Who does what is ordered: the worker. */
export type ReachTarget = (request: ReachRequest, line: ReachLine) => Promise<ReachEnd>;

// Of a node. Each has a few FIFOs and a process.
const LINES_MAX = 200;

export class ReachLines {
  readonly #client: Client<typeof DispatcherService>;
  readonly #target: ReachTarget;
  readonly #open = new Set<AbortController>();

  constructor(client: Client<typeof DispatcherService>, target: ReachTarget) {
    this.#client = client;
    this.#target = target;
  }

  handle({ id, request }: ReachOrder): void {
    this.#answer(id, request).catch((error) =>
      sessionLog.debug({ 'task.id': request.task, error: messageOf(error) }, 'line to an operator has ended'),
    );
  }

  /** The session has ended: nobody listens any more. */
  close(): void {
    for (const over of this.#open) over.abort();
  }

  async #answer(id: string, request: ReachRequest): Promise<void> {
    const over = new AbortController();
    this.#open.add(over);
    const call = this.#client.answerReach({ signal: over.signal });
    const send = (output: Partial<ReachOutput>) => call.send({ ...emptyReachOutput, ...output });
    try {
      await send({ reachId: id });
      await send({ ended: await this.#do(request, { inputs: call, send }) });
      call.end();
      // Cancelled any earlier, the call would take what was sent last along.
      for await (const _late of call);
    } finally {
      this.#open.delete(over);
      over.abort();
    }
  }

  /** A failure is an answer as well. */
  async #do(request: ReachRequest, line: ReachLine): Promise<ReachEnd> {
    try {
      if (this.#open.size > LINES_MAX)
        throw new SwarmError('resource-exhausted', `this node has ${LINES_MAX} operators inside its tasks`);
      return await this.#target(request, line);
    } catch (error) {
      const { code, message, hint = '' } = toSwarmError(error);
      return { ...emptyReachEnd, error: message, errorCode: code, hint };
    }
  }
}
