// Calls between simulated processes: real clients and handlers, and between them a network that delays, loses and cuts.
// Who calls is what its certificate says, seen as TLS would see it. It stands where gRPC and TLS stand otherwise.

import { EventEmitter } from 'node:events';
import { Duplex } from 'node:stream';
import type { Metadata } from '@grpc/grpc-js';
import type { Clock } from '../../core/clock.ts';
import { messageOf, SwarmError, toSwarmError } from '../../core/errors.ts';
import type { IdentityHolder } from '../../manager/identity-holder.ts';
import { TrunkService } from '../../proto/generated/trunk.ts';
import { decode, type Service } from '../../proto/wire.ts';
import { admit, type Caller } from '../../rpc/caller.ts';
import { type CertificateDescription, describeCertificate, verifyChain } from '../../rpc/certificates.ts';
import type { Channel } from '../../rpc/client.ts';
import { AsyncQueue } from '../../rpc/queue.ts';
import type { AnyHandler, CallContext, Handlers } from '../../rpc/server.ts';
import type { TlsIdentity } from '../../rpc/tls.ts';
import { type CarriedMethod, trunkHandlers } from '../../rpc/trunk-server.ts';
import type { Chance } from '../support/faults.ts';
import { ProcessClock, type VirtualTime } from './virtual-time.ts';

// What keep-alive of the connections takes to notice.
const BROKEN_MS = 8_000;
const LOOK_MS = 250;

/** One run of a program on a machine: nothing of it goes on after its death. */
export class SimProcess {
  readonly machine: string;
  readonly clock: WallClock;
  readonly #deaths = new Set<() => void>();
  #isAlive = true;

  constructor(machine: string, time: VirtualTime, skewMs: () => number) {
    this.machine = machine;
    this.clock = new WallClock(time, () => this.#isAlive, skewMs);
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  die(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    for (const listener of [...this.#deaths]) listener();
  }

  onDeath(listener: () => void): () => void {
    this.#deaths.add(listener);
    return () => this.#deaths.delete(listener);
  }
}

/** Real dates, as certificates have them, and a machine's error in them. */
class WallClock extends ProcessClock {
  readonly #skewMs: () => number;

  constructor(time: VirtualTime, isAlive: () => boolean, skewMs: () => number) {
    super(time, isAlive, 1);
    this.#skewMs = skewMs;
  }

  override nowMs(): number {
    return EPOCH_MS + Math.floor(super.nowMs() + this.#skewMs());
  }
}

export const EPOCH_MS = 1_700_000_000_000;

/** What a manager answers. */
export interface Doors {
  readonly process: SimProcess;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly identity: IdentityHolder;
  readonly identify: (caller: Caller) => Caller;
  /** Told of everybody who is let in. */
  readonly onAdmitted: (caller: Caller) => void;
  readonly methods: ReadonlyMap<string, CarriedMethod>;
}

export function methodsOf<S extends Service>(service: S, handlers: Handlers<S>) {
  return Object.entries(service).map(
    ([name, method]) => [method.path, { method, handle: handlers[name as keyof S] as AnyHandler }] as const,
  );
}

/** The same methods for other managers, many calls on one stream. */
export function trunkOf(
  methods: readonly (readonly [string, CarriedMethod])[],
  clock: Clock,
  doors: () => Doors,
) {
  const handlers = trunkHandlers({
    methods: new Map(methods),
    clock,
    admit: (method, from, metadata) => {
      const { identify, onAdmitted } = doors();
      const admitted = admit(method, from, identify, metadata);
      onAdmitted(admitted.caller);
      return admitted;
    },
  });
  return methodsOf(TrunkService, handlers);
}

/** Whom a caller shows and whom it expects; undefined: the socket of its own machine. */
export interface Security {
  readonly identity: TlsIdentity | undefined;
  readonly expected: { readonly clusterId?: string; readonly nodeId?: string };
  /** In place of certificates, where a simulation is about something else. */
  readonly caller?: Caller;
}

const NOBODY: Caller = { role: 'anyone', nodeId: '' };

export class SimNetwork {
  readonly time: VirtualTime;
  readonly chance: Chance;
  /** `a>b`: what a sends does not get to b. */
  readonly blocked = new Set<string>();
  lossRatio = 0;
  /** By address; of managers that run. */
  readonly doors = new Map<string, Doors>();
  readonly #open = new Set<Exchange>();
  readonly #verified = new Map<string, string>();
  readonly #subjects = new Map<string, CertificateDescription>();

  constructor(time: VirtualTime, chance: Chance) {
    this.time = time;
    this.chance = chance;
  }

  isCut(one: string, other: string): boolean {
    return this.blocked.has(`${one}>${other}`) || this.blocked.has(`${other}>${one}`);
  }

  delayMs(): number {
    return this.chance() < 0.03 ? this.chance() * 200 : 0.2 + this.chance() * 2;
  }

  channel(from: SimProcess, to: () => Doors | undefined, security: () => Security | undefined): Channel {
    const exchange = (path: string, metadata: Metadata, deadline: unknown) =>
      new Exchange(this, { from, to: to(), security: security(), path, metadata, deadline });
    const grpc = {
      makeUnaryRequest: (
        path: string,
        _serialize: unknown,
        _deserialize: unknown,
        request: unknown,
        metadata: Metadata,
        { deadline }: { deadline?: number },
        callback: (error: unknown, value?: unknown) => void,
      ) => new UnaryCall(exchange(path, metadata, deadline), request, callback),
      makeBidiStreamRequest: (
        path: string,
        _serialize: unknown,
        _deserialize: unknown,
        metadata: Metadata,
        { deadline }: { deadline?: number },
      ) => new StreamCall(exchange(path, metadata, deadline)),
    };
    return { grpc: grpc as unknown as Channel['grpc'], close: () => {} };
  }

  /** Whom TLS finds at the other end. */
  shown(doors: Doors, identity: TlsIdentity | undefined): Caller {
    if (identity === undefined || identity.certificate === '') return NOBODY;
    const { nodeId, role, clusterId, notBeforeMs } = this.#subjectOf(identity.certificate);
    if (role === undefined || clusterId !== doors.clusterId) return NOBODY;
    const problem = this.#problem(identity.certificate, doors.identity.current.roots, doors.process);
    if (problem === '') return { role, nodeId, validFromMs: notBeforeMs };
    if (!/CN=\S+ has expired/.test(problem)) return NOBODY;
    return { ...NOBODY, expiredCertificate: Buffer.from(identity.certificate) };
  }

  /** Throws when the caller does not believe these doors. */
  requireTrusted(from: SimProcess, { identity, expected }: Security, doors: Doors): void {
    const { certificate } = doors.identity.current;
    const { nodeId, role, clusterId } = this.#subjectOf(certificate);
    const problem =
      (role !== 'manager' && `node ${nodeId} answers, which is no manager`) ||
      (expected.clusterId !== undefined && expected.clusterId !== clusterId && 'another cluster answers') ||
      (expected.nodeId !== undefined && expected.nodeId !== nodeId && `node ${nodeId} answers`) ||
      (identity !== undefined && this.#problem(certificate, identity.roots, from));
    if (problem) throw new SwarmError('unavailable', problem);
  }

  /** Who was removed loses its connections. */
  disconnect(doors: Doors, nodeId: string): void {
    for (const exchange of this.#open)
      if (exchange.doors === doors && exchange.callerId === nodeId) exchange.break('disconnected');
  }

  track(exchange: Exchange): () => void {
    this.#open.add(exchange);
    return () => this.#open.delete(exchange);
  }

  #subjectOf(certificate: string): CertificateDescription {
    let subject = this.#subjects.get(certificate);
    if (subject === undefined) {
      subject = describeCertificate(certificate);
      this.#subjects.set(certificate, subject);
    }
    return subject;
  }

  /** Why a chain is not believed; empty: it is. Remembered for a second. */
  #problem(certificate: string, roots: string, { clock }: SimProcess): string {
    const nowMs = clock.nowMs();
    const key = `${Math.floor(nowMs / 1000)} ${certificate} ${roots}`;
    const known = this.#verified.get(key);
    if (known !== undefined) return known;
    if (this.#verified.size > 2_000) this.#verified.clear();
    let problem = '';
    try {
      verifyChain(certificate, roots, nowMs);
    } catch (error) {
      problem = messageOf(error);
    }
    this.#verified.set(key, problem);
    return problem;
  }
}

interface ExchangeOptions {
  readonly from: SimProcess;
  readonly to: Doors | undefined;
  readonly security: Security | undefined;
  readonly path: string;
  readonly metadata: Metadata;
  readonly deadline: unknown;
}

/** One call under way, from both ends. */
class Exchange {
  readonly doors: Doors | undefined;
  callerId = '';
  onOver: (error?: SwarmError) => void = () => {};
  readonly #network: SimNetwork;
  readonly #options: ExchangeOptions;
  readonly #gone = new AbortController();
  readonly #cleanUp: (() => void)[] = [];
  readonly #busyUntilMs = { request: 0, answer: 0 };
  /** What has come as far as a cut. */
  readonly #held: Record<'request' | 'answer', (() => void)[]> = { request: [], answer: [] };
  #isOver = false;

  constructor(network: SimNetwork, options: ExchangeOptions) {
    this.#network = network;
    const to = options.to?.process.isAlive ? options.to : undefined;
    this.#options = { ...options, to };
    this.doors = to;
    const { from, deadline } = options;
    this.#cleanUp.push(
      network.track(this),
      from.onDeath(() => this.break('the client is gone')),
      to?.process.onDeath(() => this.break('the manager is gone')) ?? (() => {}),
    );
    if (typeof deadline === 'number') {
      // Clients reckon with the time of day. Half seconds are what limits are made of.
      const limitMs = Math.round((deadline - Date.now()) / 500) * 500;
      const late = () => this.end(new SwarmError('deadline-exceeded', 'Deadline exceeded'));
      this.#cleanUp.push(from.clock.after(limitMs, late));
    }
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** At the caller; the server hears of it when the message gets there. */
  end(error?: SwarmError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const undo of this.#cleanUp) undo();
    const { from, to } = this.#options;
    to?.process.clock.wake(this.#network.delayMs(), () =>
      this.#gone.abort(new SwarmError('cancelled', 'the client went away')),
    );
    from.clock.wake(0, () => this.onOver(error));
  }

  break(reason: string): void {
    this.#network.time.after(this.#network.delayMs(), () => this.end(new SwarmError('unavailable', reason)));
  }

  /** Connects and is let in, or ends. */
  open(run: (entry: CarriedMethod, context: CallContext) => void): void {
    const { from, to, security, path, metadata } = this.#options;
    if (to === undefined) {
      this.break('connection refused');
      return;
    }
    this.carry('request', () => {
      try {
        const entry = to.methods.get(path);
        if (entry === undefined) throw new SwarmError('unimplemented', path);
        const shown = this.#shown(from, to, security);
        const identify = security === undefined ? (caller: Caller) => caller : to.identify;
        const admitted = admit(entry.method, shown, identify, (key) => metadata.get(key)[0]);
        if (security !== undefined) to.onAdmitted(admitted.caller);
        this.callerId = shown.nodeId;
        run(entry, { ...admitted, signal: this.#gone.signal });
      } catch (error) {
        this.carry('answer', () => this.end(toSwarmError(error)));
      }
    });
  }

  #shown(from: SimProcess, to: Doors, security: Security | undefined): Caller {
    if (security === undefined) return { role: 'local', nodeId: to.nodeId };
    if (security.caller !== undefined) return security.caller;
    if (to.identity.isEmpty) throw new SwarmError('unavailable', 'connection refused');
    this.#network.requireTrusted(from, security, to);
    return this.#network.shown(to, security.identity);
  }

  /** In order; while the link is cut it waits, and the connection breaks when that takes too long. */
  carry(way: 'request' | 'answer', arrive: () => void): void {
    const { from, to } = this.#options;
    if (to === undefined) return;
    const network = this.#network;
    const receiver = way === 'request' ? to.process : from;
    const isLocal = from.machine === to.process.machine;
    if (!isLocal && network.chance() < network.lossRatio * 0.1) {
      this.break('the connection broke');
      return;
    }
    const atMs = Math.max(this.#busyUntilMs[way], network.time.nowMs + (isLocal ? 0.1 : network.delayMs()));
    this.#busyUntilMs[way] = atMs;
    const held = this.#held[way];
    receiver.clock.wake(atMs - network.time.nowMs, () => {
      held.push(arrive);
      // Else the first of them is looking already, and takes the others along.
      if (held.length === 1) this.#arrive(way, 0);
    });
  }

  #arrive(way: 'request' | 'answer', waitedMs: number): void {
    const { from, to } = this.#options;
    if (this.#isOver || to === undefined) return;
    const receiver = way === 'request' ? to.process : from;
    if (!this.#network.isCut(from.machine, to.process.machine)) {
      for (const arrive of this.#held[way].splice(0)) if (!this.#isOver) arrive();
    } else if (waitedMs > BROKEN_MS) this.end(new SwarmError('unavailable', 'the connection timed out'));
    else receiver.clock.wake(LOOK_MS, () => this.#arrive(way, waitedMs + LOOK_MS));
  }
}

class UnaryCall extends EventEmitter {
  readonly #exchange: Exchange;

  constructor(exchange: Exchange, request: unknown, callback: (error: unknown, value?: unknown) => void) {
    super();
    this.#exchange = exchange;
    let answer: unknown;
    exchange.onOver = (error) => {
      this.emit('status');
      if (error === undefined) callback(null, answer);
      else callback(error);
    };
    exchange.open(({ handle }, context) => {
      Promise.resolve()
        .then(() => handle(request as never, context))
        .then(
          (value) =>
            exchange.carry('answer', () => {
              answer = value;
              exchange.end();
            }),
          (error) => exchange.carry('answer', () => exchange.end(toSwarmError(error))),
        );
    });
  }

  cancel(): void {
    this.#exchange.end(new SwarmError('cancelled', 'Cancelled on client'));
  }
}

class StreamCall extends Duplex {
  readonly #exchange: Exchange;
  readonly #requests = new AsyncQueue<unknown>();

  constructor(exchange: Exchange) {
    super({ objectMode: true });
    this.#exchange = exchange;
    exchange.onOver = (error) => {
      this.#requests.end();
      this.emit('status', error ?? { code: 0, details: '' });
      if (error === undefined) this.push(null);
      else this.destroy(error);
    };
    exchange.open((entry, context) => {
      context.signal.addEventListener('abort', () => this.#requests.end(), { once: true });
      void this.#answerAll(entry, context);
    });
  }

  async #answerAll({ method, handle }: CarriedMethod, context: CallContext): Promise<void> {
    const exchange = this.#exchange;
    try {
      for await (const answer of handle(this.#requests as never, context) as AsyncIterable<unknown>)
        exchange.carry('answer', () =>
          // What was passed on unread.
          this.push(answer instanceof Uint8Array ? decode(method.response, answer) : answer),
        );
      exchange.carry('answer', () => exchange.end());
    } catch (error) {
      exchange.carry('answer', () => exchange.end(toSwarmError(error)));
    }
  }

  override _read(): void {}

  override _write(request: unknown, _encoding: string, done: () => void): void {
    this.#exchange.carry('request', () => this.#requests.push(request));
    done();
  }

  override _final(done: () => void): void {
    this.#exchange.carry('request', () => this.#requests.end());
    done();
  }

  cancel(): void {
    this.#exchange.end(new SwarmError('cancelled', 'Cancelled on client'));
  }
}
