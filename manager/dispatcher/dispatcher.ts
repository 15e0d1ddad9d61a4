// The agents' side of the manager: sessions, heartbeats, assignments out, statuses in. Whoever falls silent for two
// heartbeat periods is SUSPECT, after three it is DOWN, and the orchestrator replaces its tasks when the brake allows it.

import { isDeepStrictEqual } from 'node:util';
import type { Clock, Random } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { ClusterSpec, Node, NodeState, Payload, Task } from '../../core/generated/objects.ts';
import { newId, type RandomBytes } from '../../core/ids.ts';
import { DOWN_PERIODS, DOWN_PERIODS_AT_START, suspectAfterMs } from '../../core/node-silence.ts';
import type {
  AgentMessage,
  Assignments,
  ClusterNews,
  DispatcherService,
  ManagerMessage,
  Register,
} from '../../proto/generated/dispatcher.ts';
import { AsyncQueue } from '../../rpc/queue.ts';
import type { CallContext, Handlers } from '../../rpc/server.ts';
import { dispatcherLog } from '../log.ts';
import type { LogBroker } from '../log-broker.ts';
import { NodeQuestions } from '../node-questions.ts';
import { ReachBroker } from '../reach-broker.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import type { Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { AssignmentTracker } from './assignments.ts';
import { Drains } from './drains.ts';
import { type DirectoryChanges, NetworkDirectory } from './network-directory.ts';
import { newsFor, type SharedNews, sharedNews } from './news.ts';
import { Rounds } from './rounds.ts';
import { StatusWriter } from './status-writer.ts';

export interface DispatcherOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly randomBytes: RandomBytes;
  readonly logBroker: LogBroker;
}

interface Session {
  readonly id: string;
  readonly nodeId: string;
  readonly outbox: AsyncQueue<ManagerMessage>;
  readonly tracker: AssignmentTracker;
  news: ClusterNews | undefined;
}

// A timer that is late by more than this share of a period: the manager itself was held up.
const LATE_SHARE = 0.25;
const PERIOD_JITTER = 0.1;
// An agent that does not read this many messages is cut off rather than kept in memory.
const OUTBOX_MAX = 10_000;
const NETWORK_BATCH_MS = 10;

export class Dispatcher {
  readonly #options: DispatcherOptions;
  /** Asks agents that have a session. */
  readonly questions: NodeQuestions;
  /** Joins operators with agents that have a session. */
  readonly reach: ReachBroker;
  readonly #statusWriter: StatusWriter;
  readonly #sessions = new Map<string, Session>();
  readonly #deadlines = new Map<string, () => void>();
  #isStopped = false;
  #isNewsPlanned = false;
  readonly #rounds: Rounds<Session>;
  /** Only while this manager leads. */
  #directory: NetworkDirectory | undefined;
  #isNetworkFlushPlanned = false;
  readonly #drains = new Drains((nodeId, taskIds) => this.#tellDrained(nodeId, taskIds));

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.questions = new NodeQuestions(options.clock, options.randomBytes);
    this.reach = new ReachBroker(options.clock, options.randomBytes);
    this.#statusWriter = new StatusWriter(options.store);
    this.#rounds = new Rounds(options.clock, (session) => this.#flush(session));
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  hasSession(nodeId: string): boolean {
    return this.#sessions.has(nodeId);
  }

  get handlers(): Handlers<typeof DispatcherService> {
    return {
      session: (requests, context) => this.#session(requests, context),
      publishLogs: async (batches, { caller }) => {
        await this.#options.logBroker.publish(caller.nodeId, batches);
        return {};
      },
      answerReach: (outputs, { caller }) => this.reach.answer(caller.nodeId, outputs),
    };
  }

  /** Sends changes of tasks to their nodes until the signal aborts. Nodes known from before get time to come back. */
  async run(signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    this.#isStopped = false;
    const directory = new NetworkDirectory(store.view);
    this.#directory = directory;
    const unsubscribe = store.subscribe(({ decisive }) => {
      for (const event of decisive) {
        const { kind, action, object, previous } = event;
        directory.note(event);
        if (kind === 'node' && action === 'removed') this.#dismiss(object.id);
        if (kind === 'cluster' || (kind === 'node' && isNews(object as Node, previous as Node | undefined)))
          this.#planNews();
        if (kind === 'payload') this.#notePayload(object as Payload);
        if (kind !== 'task') continue;
        const nodeId = (object as Task).nodeId || (previous as Task | undefined)?.nodeId;
        const session = this.#sessions.get(nodeId ?? '');
        if (session === undefined) continue;
        if (session.tracker.note(event as StoreEvent<'task'>)) this.#rounds.add(session);
      }
      if (directory.isDirty) this.#planNetworkFlush();
    });
    // Those that came before this manager heard of changes.
    for (const session of this.#sessions.values()) this.#sendAll(session, directory);
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    try {
      await this.#awaitKnownNodes();
      await stopped;
    } finally {
      unsubscribe();
      this.#isStopped = true;
      this.#directory = undefined;
      for (const cancel of this.#deadlines.values()) cancel();
      this.#deadlines.clear();
      for (const session of this.#sessions.values()) session.outbox.end();
      this.#options.logBroker.interrupt();
    }
  }

  async #awaitKnownNodes(): Promise<void> {
    for (const node of this.#options.store.view.node.values()) {
      // The sockets are open already: a node that was faster is not to be called unknown.
      if (node.status.state === 'down' || this.#deadlines.has(node.id)) continue;
      const deadline = this.#expect(node.id, DOWN_PERIODS_AT_START);
      const message = 'the manager has started; waiting for the node';
      await this.#options.store.update((tx) => {
        // It may have been heard of while this write had to be repeated.
        if (this.#deadlines.get(node.id) === deadline) this.#putNodeState(tx, node.id, 'unknown', message);
      });
    }
  }

  async *#session(
    requests: AsyncIterable<AgentMessage>,
    { signal, caller }: CallContext,
  ): AsyncIterable<ManagerMessage> {
    const incoming = requests[Symbol.asyncIterator]();
    const first = await incoming.next();
    const register = first.done ? undefined : first.value.register;
    if (register === undefined) throw new SwarmError('invalid-argument', 'a session begins with "register"');
    if (register.nodeId !== caller.nodeId)
      throw new SwarmError(
        'permission-denied',
        `node ${caller.nodeId} may not register as ${register.nodeId}`,
      );
    const session = await this.#open(register);
    const close = this.#options.logBroker.addNode(session.nodeId, (logSubscription) =>
      session.outbox.push({ logSubscription }),
    );
    const closeQuestions = this.questions.addNode(session.nodeId, (networkQuestion) =>
      session.outbox.push({ networkQuestion }),
    );
    const closeReach = this.reach.addNode(session.nodeId, (reachOrder) =>
      session.outbox.push({ reachOrder }),
    );
    const onAbort = () => session.outbox.end();
    signal.addEventListener('abort', onAbort);
    if (signal.aborted || this.#isStopped) onAbort();
    const reading = this.#readAll(session, incoming);
    try {
      yield* session.outbox;
    } finally {
      close();
      closeQuestions();
      closeReach();
      this.#drains.sessionEnded(session.id);
      signal.removeEventListener('abort', onAbort);
      if (this.#sessions.get(session.nodeId) === session) this.#sessions.delete(session.nodeId);
      // Never awaited: it ends with the call, and an agent that says nothing must not hold back its own dismissal.
      void reading;
      dispatcherLog.info({ 'node.id': session.nodeId, 'session.id': session.id }, 'session ended');
    }
  }

  async #open({ nodeId, description, address }: Register): Promise<Session> {
    const { store, randomBytes } = this.#options;
    if (store.view.node.get(nodeId) === undefined)
      throw new SwarmError('not-found', `node ${nodeId} is not part of this cluster`);
    // An old deadline that passed during the write would leave the node down although it has a session.
    this.#holdDeadline(nodeId);
    try {
      await store.update((tx) => {
        const node = tx.view.node.get(nodeId);
        if (node === undefined) return;
        const sinceMs = this.#options.clock.nowMs();
        const status = {
          ...node.status,
          state: 'ready' as const,
          message: '',
          sinceMs,
          address,
          held: false,
        };
        tx.update('node', { ...node, description, status });
      });
    } finally {
      this.#expect(nodeId, DOWN_PERIODS);
    }
    this.#sessions
      .get(nodeId)
      ?.outbox.end(new SwarmError('unavailable', 'the node has opened another session'));
    const session: Session = {
      id: newId(randomBytes),
      nodeId,
      outbox: new AsyncQueue(),
      tracker: new AssignmentTracker(nodeId),
      news: undefined,
    };
    this.#sessions.set(nodeId, session);
    session.outbox.push({ registered: { sessionId: session.id, heartbeatPeriodMs: this.#nextPeriodMs() } });
    this.#sendNews(session);
    if (this.#directory !== undefined) this.#sendAll(session, this.#directory);
    dispatcherLog.info({ 'node.id': nodeId, 'session.id': session.id }, 'session opened');
    return session;
  }

  async #readAll(session: Session, incoming: AsyncIterator<AgentMessage>): Promise<void> {
    try {
      for (;;) {
        const next = await incoming.next();
        if (next.done) break;
        if (this.#sessions.get(session.nodeId) !== session) return;
        this.#expect(session.nodeId, DOWN_PERIODS);
        this.#endSuspicion(session);
        this.#handle(session, next.value);
      }
      session.outbox.end();
    } catch (error) {
      session.outbox.end(error);
    }
  }

  #handle(session: Session, message: AgentMessage): void {
    if (message.heartbeat !== undefined) {
      session.outbox.push({ heartbeat: { periodMs: this.#nextPeriodMs() } });
    } else if (message.statuses !== undefined) {
      this.#statusWriter.write(session.nodeId, message.statuses).then(
        (sequence) => session.outbox.push({ statusAcknowledged: { sequence } }),
        (error) => session.outbox.end(error),
      );
    } else if (message.networksApplied !== undefined) {
      this.#drains.applied(session.id, message.networksApplied.sequence);
    } else if (message.networkAnswer !== undefined) {
      this.questions.answer(session.nodeId, message.networkAnswer);
    } else if (message.description !== undefined) {
      const { description } = message;
      this.#options.store
        .update((tx) => {
          const node = tx.view.node.get(session.nodeId);
          if (node !== undefined) tx.update('node', { ...node, description });
        })
        .catch((error) => session.outbox.end(error));
    }
  }

  /** A node that was removed: its next attempt is refused by what its certificate says. */
  #dismiss(nodeId: string): void {
    this.#deadlines.get(nodeId)?.();
    this.#deadlines.delete(nodeId);
    const reason = new SwarmError('permission-denied', `node ${nodeId} is not part of this cluster any more`);
    this.#sessions.get(nodeId)?.outbox.end(reason);
  }

  /** Once for all that changes in this turn of the event loop. */
  #planNews(): void {
    if (this.#isNewsPlanned) return;
    this.#isNewsPlanned = true;
    this.#options.clock.after(0, () => {
      this.#isNewsPlanned = false;
      const shared = sharedNews(this.#options.store.view);
      for (const session of this.#sessions.values()) this.#sendNews(session, shared);
    });
  }

  #sendNews(session: Session, shared: SharedNews = sharedNews(this.#options.store.view)): void {
    const node = this.#options.store.view.node.get(session.nodeId);
    if (node === undefined) return;
    const news = newsFor(shared, node);
    if (isDeepStrictEqual(news, session.news)) return;
    session.news = news;
    session.outbox.push({ news });
  }

  /** All that its agent has to do: what comes after it are differences. */
  #sendAll({ tracker, outbox }: Session, directory: NetworkDirectory): void {
    const { view } = this.#options.store;
    for (const payloads of tracker.payloads.complete(view)) outbox.push({ payloads });
    outbox.push({ assignments: tracker.complete(view, directory) });
  }

  /** What its agent does not know yet, in one message. */
  #flush(session: Session): void {
    if (this.#directory === undefined || this.#sessions.get(session.nodeId) !== session) return;
    const { view } = this.#options.store;
    for (const payloads of session.tracker.payloads.catchUp(view)) session.outbox.push({ payloads });
    send(session, session.tracker.incremental(view, this.#directory));
  }

  /** A new version goes to every node that has a task with it. */
  #notePayload({ sourceId }: Payload): void {
    for (const session of this.#sessions.values())
      if (session.tracker.payloads.refersTo(sourceId)) this.#rounds.add(session);
  }

  /** What changes in networks goes to all their nodes: a little later, so that many changes are one message. */
  #planNetworkFlush(): void {
    if (this.#isNetworkFlushPlanned) return;
    this.#isNetworkFlushPlanned = true;
    this.#options.clock.after(NETWORK_BATCH_MS, () => {
      this.#isNetworkFlushPlanned = false;
      const directory = this.#directory;
      if (directory === undefined) return;
      const mesh = directory.meshNetworkId;
      const changes = directory.takeChanges();
      this.#sendChanges(changes);
      if (directory.meshNetworkId === mesh) return;
      for (const session of this.#sessions.values()) this.#rounds.add(session);
    });
  }

  /** A task that stops serving is told when all nodes that heard of it have applied it. */
  #sendChanges(changes: DirectoryChanges): void {
    const told: (readonly [sessionId: string, sequence: number])[] = [];
    for (const session of this.#sessions.values()) {
      const assignments = session.tracker.networkChanges(changes);
      send(session, assignments);
      if (assignments !== undefined) told.push([session.id, assignments.sequence]);
    }
    if (changes.stopped.length > 0) this.#drains.begin(changes.stopped, told);
  }

  #tellDrained(nodeId: string, taskIds: readonly string[]): void {
    this.#sessions.get(nodeId)?.outbox.push({ drained: { taskIds } });
  }

  /** (Re)starts the times after which silence means SUSPECT and DOWN. Returns what stands in `#deadlines` for them. */
  #expect(nodeId: string, periods: number): () => void {
    this.#deadlines.get(nodeId)?.();
    // A message may still arrive while the sockets close.
    if (this.#isStopped) return () => {};
    const downMs = this.#periodMs() * periods;
    const suspectMs = Math.min(suspectAfterMs(this.#clusterSpec()), downMs);
    let cancelStage = this.#afterSilence(suspectMs, () => {
      this.#mark(nodeId, () => this.#markSuspect(nodeId));
      cancelStage = this.#afterSilence(downMs - suspectMs, () => {
        this.#deadlines.delete(nodeId);
        this.#sessions.get(nodeId)?.outbox.end(new SwarmError('deadline-exceeded', 'no heartbeat'));
        this.#mark(nodeId, () => this.#markDown(nodeId));
      });
    });
    const cancel = () => cancelStage();
    this.#deadlines.set(nodeId, cancel);
    return cancel;
  }

  /** A manager that was held up itself waits for one more period: it may have to read yet what it should have heard. */
  #afterSilence(delayMs: number, act: () => void): () => void {
    const { clock } = this.#options;
    const dueMs = clock.elapsedMs() + delayMs;
    let cancel = clock.after(delayMs, () => {
      const isLate = clock.elapsedMs() - dueMs > LATE_SHARE * this.#periodMs();
      if (isLate) cancel = this.#afterSilence(this.#periodMs(), act);
      else act();
    });
    return () => cancel();
  }

  #mark(nodeId: string, write: () => Promise<void>): void {
    write().catch((error) => {
      dispatcherLog.error({ 'node.id': nodeId, error: messageOf(error) }, 'cannot mark node, will retry');
      this.#expect(nodeId, 1);
    });
  }

  async #markSuspect(nodeId: string): Promise<void> {
    const deadline = this.#deadlines.get(nodeId);
    await this.#options.store.update((tx) => {
      const isReady = tx.view.node.get(nodeId)?.status.state === 'ready';
      // It may have been heard of while this write had to be repeated.
      if (isReady && this.#deadlines.get(nodeId) === deadline)
        this.#putNodeState(tx, nodeId, 'suspect', 'heartbeats are missing; it gets no new tasks');
    });
  }

  #endSuspicion({ id, nodeId }: Session): void {
    if (this.#options.store.view.node.get(nodeId)?.status.state !== 'suspect') return;
    this.#options.store
      .update((tx) => {
        const isSuspect = tx.view.node.get(nodeId)?.status.state === 'suspect';
        if (isSuspect && this.#sessions.get(nodeId)?.id === id) this.#putNodeState(tx, nodeId, 'ready', '');
      })
      .catch((error) =>
        // The next heartbeat tries again.
        dispatcherLog.warn({ 'node.id': nodeId, error: messageOf(error) }, 'cannot mark node ready'),
      );
  }

  /** The node is heard of: no deadline runs until the next `#expect`. */
  #holdDeadline(nodeId: string): void {
    this.#deadlines.get(nodeId)?.();
    this.#deadlines.set(nodeId, () => {});
  }

  async #markDown(nodeId: string): Promise<void> {
    await this.#options.store.update((tx) => {
      // It may have come back while this write had to be repeated.
      if (!this.#deadlines.has(nodeId)) this.#putNodeState(tx, nodeId, 'down', 'heartbeat failure');
    });
  }

  #putNodeState(tx: Transaction, nodeId: string, state: NodeState, message: string): void {
    const node = tx.view.node.get(nodeId);
    if (node === undefined || node.status.state === state) return;
    dispatcherLog.info({ 'node.id': nodeId, state }, 'node state changes');
    // Whether its tasks are replaced now is for the brake to say.
    const held = state === 'down';
    const status = { ...node.status, state, message, sinceMs: this.#options.clock.nowMs(), held };
    tx.update('node', { ...node, status });
  }

  #clusterSpec(): ClusterSpec {
    const [cluster] = this.#options.store.view.cluster.values();
    return cluster?.spec ?? defaultClusterSpec;
  }

  #periodMs(): number {
    return this.#clusterSpec().heartbeatPeriodMs;
  }

  #nextPeriodMs(): number {
    return Math.round(this.#periodMs() * (1 + PERIOD_JITTER * (2 * this.#options.random() - 1)));
  }
}

function send({ outbox }: Session, assignments: Assignments | undefined): void {
  if (assignments === undefined) return;
  if (outbox.size < OUTBOX_MAX) outbox.push({ assignments });
  else outbox.end(new SwarmError('resource-exhausted', 'the agent does not read its assignments'));
}

/** Status changes of thousands of nodes concern nobody's news. */
function isNews(node: Node, previous: Node | undefined): boolean {
  return (
    previous === undefined ||
    node.role !== previous.role ||
    node.renewalAskedAtMs !== previous.renewalAskedAtMs ||
    node.managerStatus?.address !== previous.managerStatus?.address
  );
}
