// Each network of the cluster on its way to what the book says of it: one step after the other, a failed one again and again.
// What is wrong is told to the operator, and to the tasks that wait for the network.

import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Logger } from '../../rpc/logger.ts';
import type { NetworkBook } from './network-book.ts';
import { isOfParent } from './network-facts.ts';
import type { Drift, Overlay, PortProblem } from './overlay/overlay.ts';

export interface FollowersOptions {
  readonly book: NetworkBook;
  /** Opened with the first network of its kind. */
  readonly overlay: (isEncrypted: boolean) => Promise<Overlay>;
  /** Told why networks do not work; empty when they do again. */
  readonly onProblem: (problem: string) => void;
  /** Told what an audit had to mend. */
  readonly onRepair: (drift: readonly Drift[]) => void;
  readonly logger: Logger;
}

interface Follower {
  isDirty: boolean;
  running: Promise<void>;
  /** Why the last step failed; undefined: it did not. */
  problem: unknown;
  cancelRetry: () => void;
  /** As it was when the network was there. */
  isEncrypted: boolean;
}

const RETRY_MS = 1_000;

export class NetworkFollowers {
  readonly #options: FollowersOptions;
  readonly #followers = new Map<string, Follower>();
  /** Published ports that somebody else on this node has. */
  #ports: readonly PortProblem[] = [];
  #isClosed = false;

  constructor(options: FollowersOptions) {
    this.#options = options;
  }

  /** The book says something new of this network. Of one that it says nothing of, the kernel may have something. */
  follow(networkId: string, isEncrypted = false): void {
    if (this.#isClosed) return;
    const known = this.#followers.get(networkId);
    if (known === undefined) {
      const follower: Follower = {
        isDirty: true,
        running: Promise.resolve(),
        problem: undefined,
        cancelRetry: () => {},
        isEncrypted,
      };
      this.#followers.set(networkId, follower);
      follower.running = this.#run(networkId, follower);
    } else if (!known.isDirty) {
      known.isDirty = true;
      known.running = known.running.then(() => this.#run(networkId, known));
    }
  }

  /** Resolves when the network is as the book says; rejects with what stands in the way. */
  async ready(networkId: string): Promise<void> {
    if (this.#options.book.get(networkId) === undefined)
      throw new SwarmError('unavailable', `the managers have not told this node of network ${networkId} yet`);
    const follower = this.#followers.get(networkId);
    await follower?.running;
    if (follower?.problem !== undefined) throw follower.problem;
  }

  /** Compares each network with the kernel and mends what is different. */
  async audit(): Promise<void> {
    for (const [networkId, { problem, isEncrypted }] of this.#followers) {
      if (problem !== undefined || this.#options.book.overlayNetwork(networkId) === undefined) continue;
      try {
        const drift = await (await this.#options.overlay(isEncrypted)).repair(networkId);
        if (drift.length > 0) this.#options.onRepair(drift);
      } catch (error) {
        this.#options.logger.error(
          { network: networkId, error: messageOf(error) },
          'cannot audit the network',
        );
      }
    }
  }

  /** Resolves when every network is as the book says, or has failed. */
  async settled(): Promise<void> {
    await Promise.all([...this.#followers.values()].map(({ running }) => running));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { cancelRetry } of this.#followers.values()) cancelRetry();
    await this.settled();
  }

  async #run(networkId: string, follower: Follower): Promise<void> {
    follower.cancelRetry();
    follower.isDirty = false;
    try {
      await this.#step(networkId, follower);
      follower.problem = undefined;
    } catch (error) {
      follower.problem = error;
      const name = this.#options.book.get(networkId)?.spec.name ?? networkId;
      this.#options.logger.error(
        { network: name, error: messageOf(error) },
        'network does not work, will retry',
      );
      this.#retry(networkId, follower);
    }
    if (
      follower.problem === undefined &&
      this.#options.book.get(networkId) === undefined &&
      !follower.isDirty
    )
      this.#followers.delete(networkId);
    this.#tell();
  }

  #retry(networkId: string, follower: Follower): void {
    const timer = setTimeout(() => this.follow(networkId), RETRY_MS);
    follower.cancelRetry = () => clearTimeout(timer);
  }

  async #step(networkId: string, follower: Follower): Promise<void> {
    const { book } = this.#options;
    const known = book.get(networkId);
    if (known !== undefined && isOfParent(known)) return;
    if (known !== undefined) follower.isEncrypted = known.spec.encrypted;
    const overlay = await this.#options.overlay(follower.isEncrypted);
    const network = book.overlayNetwork(networkId);
    if (network === undefined) await overlay.remove(networkId);
    else {
      await overlay.ensure(network);
      await overlay.apply(networkId, book.overlayState(networkId));
    }
    if (!follower.isEncrypted) this.#ports = await overlay.portProblems();
    // Whoever has a port may give it back.
    if (network?.isIngress === true && this.#ports.length > 0) this.#retry(networkId, follower);
  }

  #tell(): void {
    const problems = [...this.#followers].flatMap(([id, { problem }]) =>
      problem === undefined
        ? []
        : [`network ${this.#options.book.get(id)?.spec.name ?? id}: ${messageOf(problem)}`],
    );
    this.#options.onProblem([...problems, ...this.#ports.map(({ reason }) => reason)].join('; '));
  }
}
