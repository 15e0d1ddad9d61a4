// The agent of one node: the worker with its tasks, and the session that ties it to a manager.

import type { Clock, Random } from '../core/clock.ts';
import type { LogDriver, NodeDescription } from '../core/generated/objects.ts';
import type { ClusterNews } from '../proto/generated/dispatcher.ts';
import type { Channel } from '../rpc/client.ts';
import type { Engine } from './engine/engine.ts';
import type { TaskNetworks } from './network/network.ts';
import type { TaskFiles } from './secrets/task-files.ts';
import { Redescription, runSessions } from './session/session.ts';
import { Worker } from './worker/worker.ts';

export interface AgentOptions {
  readonly nodeId: string;
  /** A connection to a manager; asked for each session anew. */
  readonly connect: () => Channel;
  /** How others reach this node, without port. */
  readonly address: () => string;
  readonly onNews: (news: ClusterNews) => void;
  readonly engine: Engine;
  readonly network: TaskNetworks;
  readonly files: TaskFiles;
  readonly stateDirectory: string;
  readonly describe: () => NodeDescription;
  readonly clock: Clock;
  readonly random: Random;
  /** Of services that say nothing; absent: files of the usual size. */
  readonly logDriver?: LogDriver | undefined;
  /** Of services that say nothing; absent: containers have the node's users. */
  readonly usernsMode?: 'host' | 'private';
  /** Hears of every health check of a container. */
  readonly onHealthCheck: (isSuccess: boolean) => void;
}

export interface Agent {
  /** Tells the manager what `describe` says now. */
  describeAgain(): void;
  /** Images that services with tasks here need. */
  wantedImages(): string[];
  /** Stops and erases all tasks of this node. */
  removeAll(): Promise<void>;
  /** Ends the session and leaves the tasks running. */
  stop(): Promise<void>;
}

/** Adopts the tasks of a previous run, then keeps a session with the manager until stopped. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const worker = await Worker.open(options);
  const stopping = new AbortController();
  const redescription = new Redescription();
  const sessions = runSessions({ ...options, worker, redescription }, stopping.signal);
  const endSessions = async () => {
    stopping.abort();
    await sessions;
  };
  return {
    describeAgain: () => redescription.announce(),
    wantedImages: () => worker.wantedImages(),
    stop: async () => {
      await endSessions();
      worker.stop();
    },
    removeAll: async () => {
      await endSessions();
      await worker.removeAll();
    },
  };
}
