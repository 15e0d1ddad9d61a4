// The agent of one node: the worker with its tasks, and the session that ties it to a manager.

import type { Clock, Random } from '../core/clock.ts';
import type { NodeDescription } from '../core/generated/objects.ts';
import { openChannel } from '../rpc/client.ts';
import type { Engine } from './engine/engine.ts';
import type { Network } from './network/network.ts';
import { runSessions } from './session/session.ts';
import { Worker } from './worker/worker.ts';

export interface AgentOptions {
  readonly nodeId: string;
  /** gRPC target of the manager. */
  readonly manager: string;
  readonly engine: Engine;
  readonly network: Network;
  readonly stateDirectory: string;
  readonly describe: () => NodeDescription;
  readonly clock: Clock;
  readonly random: Random;
}

export interface Agent {
  /** Stops and erases all tasks of this node. */
  removeAll(): Promise<void>;
  /** Ends the session and leaves the tasks running. */
  stop(): Promise<void>;
}

/** Adopts the tasks of a previous run, then keeps a session with the manager until stopped. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { engine, network, clock, stateDirectory } = options;
  const worker = await Worker.open({ engine, network, clock, stateDirectory });
  const stopping = new AbortController();
  const channel = openChannel(options.manager);
  const sessions = runSessions({ ...options, worker, channel }, stopping.signal);
  const endSessions = async () => {
    stopping.abort();
    await sessions;
    channel.close();
  };
  return {
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
