// The agent's tie to a manager: registers, keeps the heart beating, takes assignments to the worker and statuses back.
// A session that breaks is opened again; the worker goes on meanwhile.

import { assert } from '../../core/assert.ts';
import { type Clock, type Random, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { NodeDescription } from '../../core/generated/objects.ts';
import {
  type AgentMessage,
  type ClusterNews,
  DispatcherService,
  type ManagerMessage,
  type NetworkQuestion,
  StatusBatchCodec,
} from '../../proto/generated/dispatcher.ts';
import { encode } from '../../proto/wire.ts';
import { type Channel, createClient } from '../../rpc/client.ts';
import { silenceMs } from '../linux/tcp-info.ts';
import { sessionLog } from '../log.ts';
import type { Worker } from '../worker/worker.ts';
import { Heart } from './heart.ts';
import { LogPublisher } from './log-publisher.ts';
import { ReachLines } from './reach-lines.ts';
import { StatusReporter } from './status-reporter.ts';

export interface SessionOptions {
  readonly nodeId: string;
  /** A connection to a manager; asked for each session anew. */
  readonly connect: () => Channel;
  readonly worker: Worker;
  /** How others reach this node, without port. */
  readonly address: () => string;
  readonly redescription: Redescription;
  readonly onNews: (news: ClusterNews) => void;
  readonly describe: () => NodeDescription;
  readonly clock: Clock;
  readonly random: Random;
}

// Swarm's back-off.
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 8_000;
// While no manager can be reached nobody is spared by waiting longer.
const REACH_RETRY_MS = 200;

/** How the session that is open hears that the node's description has changed. A new session tells it anyway. */
export class Redescription {
  #listener = () => {};

  listen(listener: () => void): void {
    this.#listener = listener;
  }

  announce(): void {
    this.#listener();
  }
}

/** Keeps a session open until the signal aborts. */
export async function runSessions(options: SessionOptions, signal: AbortSignal): Promise<void> {
  let backoffMs = BACKOFF_MIN_MS;
  while (!signal.aborted) {
    try {
      await runSession(options, signal, () => {
        backoffMs = BACKOFF_MIN_MS;
      });
      sessionLog.info('session closed by the manager');
    } catch (error) {
      if (signal.aborted) return;
      sessionLog.warn(
        { error: messageOf(error), 'retry.ms': Math.round(backoffMs) },
        'session lost, will retry',
      );
    }
    await sleep(options.clock, backoffMs * (0.5 + options.random() / 2), signal).catch(() => {});
    backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
  }
}

async function runSession(
  options: SessionOptions,
  signal: AbortSignal,
  onRegistered: () => void,
): Promise<void> {
  const channel = await reachManager(options, signal);
  const client = createClient(DispatcherService, channel);
  const ended = new AbortController();
  const call = client.session({ signal: AbortSignal.any([signal, ended.signal]) });
  const send = (message: AgentMessage) => {
    // A failed send also fails the receiving side, which ends the session.
    call.send(message).catch((error) => sessionLog.debug({ error: messageOf(error) }, 'send failed'));
  };
  const publisher = new LogPublisher(
    client,
    (taskId, query, stop) => options.worker.logs(taskId, query, stop),
    options.clock,
  );
  const lines = new ReachLines(client, (request, line) => options.worker.reach(request, line));
  const heart = new Heart({
    clock: options.clock,
    pulse: () => send({ heartbeat: {} }),
    onLost: () => ended.abort(),
    silenceMs: () => {
      const descriptor = channel.descriptor?.();
      return descriptor && silenceMs(descriptor);
    },
    reach: channel.reach,
  });
  const session = new SessionState(options, send);
  try {
    const { nodeId, describe, address } = options;
    send({ register: { nodeId, description: describe(), address: address() } });
    heart.begin();
    options.redescription.listen(() => send({ description: describe() }));
    for await (const message of call) {
      heart.hear();
      if (message.registered !== undefined) {
        sessionLog.info({ 'session.id': message.registered.sessionId }, 'session opened');
        onRegistered();
        heart.beat(message.registered.heartbeatPeriodMs);
      } else if (message.heartbeat !== undefined) heart.beat(message.heartbeat.periodMs);
      else if (message.news !== undefined) options.onNews(message.news);
      else if (message.payloads !== undefined) options.worker.hearPayloads(message.payloads);
      else if (message.drained !== undefined) options.worker.drained(message.drained.taskIds);
      else if (message.networkQuestion !== undefined) answer(options.worker, message.networkQuestion, send);
      else if (message.logSubscription !== undefined) publisher.handle(message.logSubscription);
      else if (message.reachOrder !== undefined) lines.handle(message.reachOrder);
      else session.handle(message);
    }
  } finally {
    heart.stop();
    publisher.close();
    lines.close();
    session.close();
    options.redescription.listen(() => {});
    ended.abort();
    channel.close();
  }
}

/** A connection to a manager whose machine is there: a call to one that is not would hang for many seconds. */
async function reachManager(
  { connect, clock, random }: SessionOptions,
  signal: AbortSignal,
): Promise<Channel> {
  for (let attempt = 1; ; attempt++) {
    const channel = connect();
    if (channel.reach === undefined || (await channel.reach(signal))) return channel;
    channel.close();
    if (attempt === 1) sessionLog.warn('no manager can be reached, will retry');
    await sleep(clock, REACH_RETRY_MS * (0.5 + random() / 2), signal);
  }
}

/** A question that cannot be answered is answered with the reason. */
function answer(worker: Worker, question: NetworkQuestion, send: (message: AgentMessage) => void): void {
  const { id } = question;
  worker.examineNetworks(question).then(
    (networkAnswer) => send({ networkAnswer }),
    (error) => {
      const finding = { ok: false, subject: 'agent', text: messageOf(error), remedy: '', taskId: '' };
      send({ networkAnswer: { id, findings: [finding] } });
    },
  );
}

/** Assignments and statuses of one session. */
class SessionState {
  readonly #worker: Worker;
  readonly #clock: Clock;
  readonly #send: (message: AgentMessage) => void;
  #reporter: StatusReporter | undefined;
  #sequence = 0;

  constructor({ worker, clock }: SessionOptions, send: (message: AgentMessage) => void) {
    this.#worker = worker;
    this.#clock = clock;
    this.#send = send;
  }

  handle({ assignments, statusAcknowledged }: ManagerMessage): void {
    if (assignments !== undefined) {
      if (assignments.sequence !== this.#sequence + 1)
        throw new SwarmError(
          'out-of-sequence',
          `assignments ${assignments.sequence} follow ${this.#sequence}`,
        );
      this.#sequence = assignments.sequence;
      const { sequence, networks } = assignments;
      const applied = this.#worker.assign(assignments);
      if (networks.length > 0) void applied.then(() => this.#send({ networksApplied: { sequence } }));
      if (assignments.complete) this.#startReporting();
    } else if (statusAcknowledged !== undefined) {
      assert(this.#reporter !== undefined, 'a status was acknowledged before any was sent');
      this.#reporter.acknowledge(statusAcknowledged.sequence);
    }
  }

  close(): void {
    this.#worker.onStatus(() => {});
    this.#reporter?.close();
  }

  /** Only now does the worker know which of its tasks the manager still has. */
  #startReporting(): void {
    const statuses = this.#worker.statuses();
    const reporter = new StatusReporter(this.#clock, statuses, (batch) =>
      this.#send({ statuses: encode(StatusBatchCodec, batch) }),
    );
    this.#reporter = reporter;
    this.#worker.onStatus((taskId, status) => reporter.report(taskId, status));
  }
}
