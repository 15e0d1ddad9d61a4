// Tasks that stop serving, and the nodes that have not yet taken them out of their services. A task is told to end at once,
// and waits by itself until it hears that the last of them has.

import type { NetworkEndpoint } from '../../proto/generated/dispatcher.ts';

type Told = readonly [sessionId: string, sequence: number];

interface Drain {
  readonly endpoints: readonly NetworkEndpoint[];
  /** "session sequence" of what has not been applied. */
  readonly waiting: Set<string>;
}

export class Drains {
  readonly #tell: (nodeId: string, taskIds: readonly string[]) => void;
  readonly #drains = new Set<Drain>();

  /** `tell` hears of tasks that nobody sends new connections to any more, with their node. */
  constructor(tell: (nodeId: string, taskIds: readonly string[]) => void) {
    this.#tell = tell;
  }

  /** These have stopped serving, and these sessions were told so. */
  begin(endpoints: readonly NetworkEndpoint[], told: readonly Told[]): void {
    const drain = { endpoints, waiting: new Set(told.map(keyOf)) };
    this.#drains.add(drain);
    this.#check(drain);
  }

  applied(sessionId: string, sequence: number): void {
    this.#settle((key) => key === keyOf([sessionId, sequence]));
  }

  /** The node is told anew when it comes back. */
  sessionEnded(sessionId: string): void {
    this.#settle((key) => key.startsWith(`${sessionId} `));
  }

  #settle(isSettled: (key: string) => boolean): void {
    for (const drain of this.#drains) {
      for (const key of drain.waiting) if (isSettled(key)) drain.waiting.delete(key);
      this.#check(drain);
    }
  }

  #check(drain: Drain): void {
    if (drain.waiting.size > 0) return;
    this.#drains.delete(drain);
    for (const [nodeId, endpoints] of Map.groupBy(drain.endpoints, (endpoint) => endpoint.nodeId))
      this.#tell(nodeId, [...new Set(endpoints.map(({ taskId }) => taskId))]);
  }
}

function keyOf([sessionId, sequence]: Told): string {
  return `${sessionId} ${sequence}`;
}
