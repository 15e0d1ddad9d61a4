// Many nodes as one process: each joins with a token, has a certificate and a session over a connection of its own like a
// real agent, and says of every task that it is told to run that it runs. Told what to do over the IPC channel of
// `SimulatedAgents` (simulated-agents.ts), which also knows its messages.

import { setTimeout as delay } from 'node:timers/promises';
import { Limiter } from '../../agent/engine/limiter.ts';
import { hasCode, messageOf } from '../../core/errors.ts';
import { emptyNodeDescription, emptyTaskStatus, type Task } from '../../core/generated/objects.ts';
import { compareTaskStates } from '../../core/task-state.ts';
import { x509Tool } from '../../manager/ca/x509.ts';
import { joinCluster } from '../../node/joining.ts';
import {
  type AgentMessage,
  DispatcherService,
  type ManagerMessage,
  StatusBatchCodec,
  type TaskStatusUpdate,
} from '../../proto/generated/dispatcher.ts';
import { emptyIssueCertificateRequest } from '../../proto/generated/membership.ts';
import { encode } from '../../proto/wire.ts';
import { createClient, openTlsChannel } from '../../rpc/client.ts';
import { clientCredentials } from '../../rpc/tls.ts';

export interface AgentsConfig {
  readonly token: string;
  /** host:port; the agents spread over them. */
  readonly managers: readonly string[];
  /** Of each agent. */
  readonly labels: readonly Readonly<Record<string, string>>[];
}

export type AgentsRequest =
  | { readonly op: 'counts' }
  /**
   * Every agent that has tasks sends news of a few of them again and again, for so long: so often as makes up `perSecond` of all,
   * but not before the last are stored.
   */
  | {
      readonly op: 'update';
      readonly seconds: number;
      readonly tasksPerBatch: number;
      readonly perSecond: number;
    };

export interface AgentsCounts {
  /** Tasks whose RUNNING is stored. */
  readonly running: number;
  /** Of other news of tasks, those that are stored. */
  readonly updated: number;
}

const JOINS_AT_ONCE = 8;
/** As agents do: what comes soon after a batch makes up the next. */
const BATCH_INTERVAL_MS = 25;
const RETRY_MS = 50;
const PID = 4711;

const counts = { running: 0, updated: 0 };

/** While news is made up: until when, of how many tasks at a time, and how long from one to the next. */
interface Updating {
  readonly untilMs: number;
  readonly tasks: number;
  readonly intervalMs: number;
}

class SimulatedAgent {
  readonly #send: (message: AgentMessage) => void;
  readonly #running = new Set<string>();
  #pending: TaskStatusUpdate[] = [];
  #inFlight: { readonly batch: readonly TaskStatusUpdate[]; readonly kind: keyof typeof counts } | undefined;
  #sequence = 0;
  #notBeforeMs = 0;
  #isTimed = false;
  #updating: Updating | undefined;
  #next = 0;

  constructor(send: (message: AgentMessage) => void) {
    this.#send = send;
  }

  hear({ registered, heartbeat, assignments, statusAcknowledged }: ManagerMessage): void {
    const periodMs = registered?.heartbeatPeriodMs ?? heartbeat?.periodMs;
    if (periodMs !== undefined) setTimeout(() => this.#send({ heartbeat: {} }), periodMs).unref();
    for (const task of assignments?.tasks ?? []) this.#take(task);
    for (const id of assignments?.removedTaskIds ?? []) this.#running.delete(id);
    if (statusAcknowledged !== undefined) {
      if (this.#inFlight !== undefined) counts[this.#inFlight.kind] += this.#inFlight.batch.length;
      this.#inFlight = undefined;
    }
    this.#flush();
  }

  get taskCount(): number {
    return this.#running.size;
  }

  update(updating: Updating): void {
    this.#updating = updating;
    // Not all at once.
    this.#notBeforeMs = performance.now() + Math.random() * updating.intervalMs;
    this.#flush();
  }

  #take(task: Task): void {
    if (compareTaskStates(task.desiredState, 'running') !== 0 || this.#running.has(task.id)) return;
    this.#running.add(task.id);
    this.#pending.push(statusOf(task.id, 'started'));
  }

  #flush(): void {
    if (this.#inFlight !== undefined || this.#isTimed) return;
    if (this.#pending.length === 0 && !this.#isUpdating) return;
    const waitMs = this.#notBeforeMs - performance.now();
    if (waitMs > 0) {
      this.#isTimed = true;
      setTimeout(() => {
        this.#isTimed = false;
        this.#flush();
      }, waitMs);
      return;
    }
    const kind = this.#pending.length > 0 ? 'running' : 'updated';
    const intervalMs = kind === 'running' ? BATCH_INTERVAL_MS : (this.#updating?.intervalMs ?? 0);
    this.#notBeforeMs = Math.max(this.#notBeforeMs, performance.now() - intervalMs) + intervalMs;
    const batch = kind === 'running' ? this.#pending : this.#news();
    this.#pending = [];
    this.#inFlight = { batch, kind };
    this.#send({ statuses: encode(StatusBatchCodec, { sequence: ++this.#sequence, updates: batch }) });
  }

  get #isUpdating(): boolean {
    return this.#updating !== undefined && performance.now() < this.#updating.untilMs;
  }

  #news(): TaskStatusUpdate[] {
    const ids = [...this.#running];
    const count = Math.min(ids.length, this.#updating?.tasks ?? 0);
    return Array.from({ length: count }, () =>
      statusOf(ids[this.#next++ % ids.length] ?? '', `news ${this.#sequence}`),
    );
  }
}

function statusOf(taskId: string, message: string): TaskStatusUpdate {
  const container = { pid: PID, exitCode: 0 };
  const status = {
    ...emptyTaskStatus,
    state: 'running',
    timestampMs: Date.now(),
    message,
    container,
  } as const;
  return { taskId, status };
}

async function startAgent(
  { token, managers }: AgentsConfig,
  labels: Readonly<Record<string, string>>,
  position: number,
): Promise<SimulatedAgent> {
  const { nodeId, clusterId, identity } = await joinCluster(x509Tool, {
    token,
    managers,
    request: { ...emptyIssueCertificateRequest, labels },
  });
  const manager = managers[position % managers.length] ?? '';
  const channel = openTlsChannel(manager, clientCredentials(identity, { clusterId }));
  const description = {
    ...emptyNodeDescription,
    hostname: `agent-${position}`,
    platform: { os: 'linux', architecture: 'amd64' },
    resources: { cpuNanos: 1e12, memoryBytes: 2 ** 44 },
  };
  for (;;) {
    const call = createClient(DispatcherService, channel).session();
    const messages = call[Symbol.asyncIterator]();
    call.send({ register: { nodeId, description, address: '' } }).catch(() => {});
    try {
      const first = await messages.next();
      if (first.done === true) throw new Error('the session has ended');
      const agent = new SimulatedAgent((message) => {
        call.send(message).catch(fail);
      });
      agent.hear(first.value);
      follow(agent, messages).catch(fail);
      return agent;
    } catch (error) {
      // The manager may not have heard yet that the node has joined.
      if (!hasCode(error, 'permission-denied') && !hasCode(error, 'not-found')) throw error;
      await delay(RETRY_MS);
    }
  }
}

async function follow(agent: SimulatedAgent, messages: AsyncIterator<ManagerMessage>): Promise<never> {
  for (;;) {
    const next = await messages.next();
    if (next.done === true) throw new Error('a session has ended');
    agent.hear(next.value);
  }
}

function fail(error: unknown): never {
  process.stderr.write(`agents: ${messageOf(error)}\n`);
  process.exit(1);
}

process.once('message', async (config: AgentsConfig) => {
  const joins = new Limiter(JOINS_AT_ONCE);
  const agents = await Promise.all(
    config.labels.map((labels, position) => joins.run(() => startAgent(config, labels, position))),
  ).catch(fail);
  process.on('message', (request: AgentsRequest) => {
    if (request.op === 'update') {
      const { seconds, tasksPerBatch: tasks, perSecond } = request;
      // Some may have none: those that do not satisfy what the services want.
      const busy = agents.filter(({ taskCount }) => taskCount > 0);
      const intervalMs = (busy.length * tasks * 1000) / perSecond;
      for (const agent of busy)
        agent.update({ untilMs: performance.now() + seconds * 1000, tasks, intervalMs });
    }
    process.send?.(counts);
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.('ready');
});
