// Services on three hosts that are changed all the time while clients ask them over every path. Outside the cuts that the
// soak itself announces (it kills a process, say), no request may fail. What happens is chosen by the seed.

import { setTimeout as delay } from 'node:timers/promises';
import { emptyPortConfig, type ServiceSpec, type Task } from '../../core/generated/objects.ts';
import { Asking, ECHO_PORT, type Failure, type Place } from '../support/echo-service.ts';
import { eventually } from '../support/eventually.ts';
import { attachmentTo, NetworkCluster } from '../support/network-cluster.ts';
import { createService, tasksOf } from '../support/services.ts';

const HOSTS = 3;
const INGRESS_PORT = 8090;
/** Swarm's. With less, a daemon that is killed on a busy machine is away so long that its clients' tasks are replaced. */
const HEARTBEAT_PERIOD_MS = 5_000;
/** Requests may fail from a kill until this long after the managers have noticed it: the other nodes have to hear of it. */
const CUT_MS = 1_000;
/** A daemon that is back hears all anew, and ends the flows of each task that stopped meanwhile. */
const DAEMON_CUT_MS = 2_000;
const SETTLED_LIMIT_MS = 60_000;

export interface SoakReport {
  readonly seed: number;
  readonly requests: number;
  readonly changes: Readonly<Record<string, number>>;
  /** Outside announced cuts. */
  readonly failures: readonly PathFailure[];
  /** Within them. */
  readonly cutFailures: number;
}

interface PathFailure extends Failure {
  readonly path: string;
  /** What was being changed. */
  readonly during: string;
}

interface Client {
  readonly path: string;
  readonly asking: Asking;
}

export class NetworkSoak {
  readonly #world: NetworkCluster;
  readonly #random: () => number;
  readonly #seed: number;
  readonly #say: (line: string) => void;
  readonly #clients: Client[] = [];
  readonly #changes: Record<string, number> = {};
  readonly #cuts: { readonly fromMs: number; readonly untilMs: number }[] = [];
  readonly #story: { readonly name: string; readonly fromMs: number }[] = [];
  /** Tasks that the clients ask from. */
  #askers: readonly Task[] = [];
  #serial = 0;

  private constructor(world: NetworkCluster, seed: number, say: (line: string) => void) {
    this.#world = world;
    this.#seed = seed;
    this.#random = mulberry32(seed);
    this.#say = say;
  }

  /** Runs for so long. `name` must be unique on the machine and short. */
  static async run(
    name: string,
    options: { seed: number; durationMs: number; say: (line: string) => void },
  ): Promise<SoakReport> {
    await using world = await NetworkCluster.start(name, HOSTS, { heartbeatPeriodMs: HEARTBEAT_PERIOD_MS });
    const soak = new NetworkSoak(world, options.seed, options.say);
    await soak.#prepare();
    const untilMs = Date.now() + options.durationMs;
    try {
      while (Date.now() < untilMs) await soak.#change();
      // What is on its way is to arrive.
      await delay(500);
      await soak.#requireClients();
    } finally {
      for (const { asking } of soak.#clients) await asking[Symbol.asyncDispose]();
    }
    return soak.#report();
  }

  async #prepare(): Promise<void> {
    const world = this.#world;
    await world.createNetwork('soak');
    const ports = (['tcp', 'udp'] as const).map((protocol) => ({
      ...emptyPortConfig,
      protocol,
      publishedPort: INGRESS_PORT,
      targetPort: ECHO_PORT,
    }));
    const quick = (spec: ServiceSpec): ServiceSpec => ({
      ...spec,
      update: { ...spec.update, parallelism: 2, order: 'start-first', monitorMs: 100 },
    });
    await world.startEcho('web', { replicas: 6, networks: ['soak'], ports, change: quick });
    await world.startEcho('direct', {
      replicas: 3,
      networks: ['soak'],
      change: (spec) => ({ ...quick(spec), endpoint: { ...spec.endpoint, mode: 'dnsrr' } }),
    });
    const { tasks } = await world.startEcho('client', {
      replicas: HOSTS,
      networks: ['soak'],
      change: (spec) => ({
        ...spec,
        task: { ...spec.task, placement: { ...spec.task.placement, maxReplicasPerNode: 1 } },
      }),
    });
    this.#askers = tasks;
    for (const [index, task] of tasks.entries())
      for (const how of ['tcp', 'udp'] as const) this.#ask(`vip ${how} ${index}`, { task }, 'web', how);
    this.#ask('dnsrr tcp', { task: tasks[0] as Task }, 'direct', 'tcp');
    const outside = { host: world.cluster.lan.addOutsider() };
    for (let position = 0; position < HOSTS; position++)
      for (const how of ['tcp', 'udp'] as const)
        this.#ask(
          `ingress ${how} ${position}`,
          outside,
          world.cluster.lan.addressOf(position),
          how,
          INGRESS_PORT,
        );
  }

  #ask(path: string, place: Place, host: string, how: 'tcp' | 'udp', port = ECHO_PORT): void {
    this.#clients.push({ path, asking: new Asking(place, { host, how, port, pauseMs: 10 }) });
  }

  /** Who asks from a container that has been replaced asks from nowhere. */
  async #requireClients(): Promise<void> {
    const tasks = await tasksOf(this.#world.manager, await this.#idOf('client'));
    const lost = this.#askers.filter(({ id }) => !tasks.some((task) => task.id === id && isRunning(task)));
    if (lost.length === 0) return;
    const told = tasks.map(
      ({ id, nodeId, desiredState, status: { state, message, error, timestampMs } }) =>
        `${new Date(timestampMs).toISOString()} ${id} on ${nodeId}: ${state}, to be ${desiredState}: ${message} ${error}`,
    );
    throw new Error(`clients were replaced, what they asked says nothing:\n${told.join('\n')}`);
  }

  async #change(): Promise<void> {
    const changes: Record<string, () => Promise<void>> = {
      scale: () => this.#scale(),
      update: () => this.#update('start-first'),
      'update, stopping first': () => this.#update('stop-first'),
      deploy: () => this.#deploy(),
      'kill a task': () => this.#killTask(),
      'kill a daemon': () => this.#killDaemon(),
      'drain a node': () => this.#drain(),
    };
    const names = Object.keys(changes);
    const name = names[Math.floor(this.#random() * names.length)] as string;
    this.#changes[name] = (this.#changes[name] ?? 0) + 1;
    this.#say(`${new Date().toISOString()} ${name}`);
    this.#story.push({ name, fromMs: Date.now() });
    await changes[name]?.();
  }

  async #scale(): Promise<void> {
    const replicas = 3 + Math.floor(this.#random() * 6);
    await this.#world.update('web', (spec) => ({ ...spec, mode: { replicated: { replicas } } }));
    await this.#settled('web');
  }

  async #update(order: 'start-first' | 'stop-first'): Promise<void> {
    const name = this.#random() < 0.7 ? 'web' : 'direct';
    const forceUpdate = ++this.#serial;
    await this.#world.update(name, (spec) => ({
      ...spec,
      task: { ...spec.task, forceUpdate },
      update: { ...spec.update, order, parallelism: 1 },
    }));
    const { service } = await this.#world.manager.control.getService({ service: name });
    await this.#settled(name, { sinceVersion: service.specVersion });
  }

  /** Another network and service, which come and go beside the others. */
  async #deploy(): Promise<void> {
    const name = `other${++this.#serial}`;
    const network = await this.#world.createNetwork(name);
    const { id } = await createService(this.#world.manager, name, {
      image: 'localhost/bb:1',
      replicas: 6,
      change: (spec) => ({
        ...spec,
        task: { ...spec.task, networks: [attachmentTo(name), attachmentTo('soak')] },
      }),
    });
    await this.#settled(name);
    await this.#world.remove(name);
    await eventually(async () => (await tasksOf(this.#world.manager, id)).length === 0, SETTLED_LIMIT_MS);
    await eventually(
      () => this.#world.manager.control.removeNetwork({ network: network.id }),
      SETTLED_LIMIT_MS,
    );
  }

  /** Nobody is warned: requests may fail until it has been noticed. */
  async #killTask(): Promise<void> {
    const tasks = (await tasksOf(this.#world.manager, await this.#idOf('web'))).filter(isRunning);
    const task = tasks[Math.floor(this.#random() * tasks.length)];
    if (task?.status.container === undefined) return;
    const fromMs = Date.now();
    process.kill(task.status.container.pid, 'SIGKILL');
    await this.#settled('web', { goneTaskId: task.id });
    this.#cuts.push({ fromMs, untilMs: Date.now() + CUT_MS });
  }

  /** Traffic goes on without it; only names are not answered meanwhile, so those who ask for names are cut. */
  async #killDaemon(): Promise<void> {
    const position = 1 + Math.floor(this.#random() * (HOSTS - 1));
    const fromMs = Date.now();
    await this.#world.cluster.node(position).killDaemon();
    await this.#world.cluster.node(position).startDaemon();
    await this.#world.cluster.until(position, ({ status }) => status.state === 'ready');
    this.#cuts.push({ fromMs, untilMs: Date.now() + DAEMON_CUT_MS });
    await this.#settled('web');
  }

  async #drain(): Promise<void> {
    const position = 1 + Math.floor(this.#random() * (HOSTS - 1));
    const { control } = this.#world.manager;
    for (const availability of ['pause', 'active'] as const) {
      const node = await this.#world.cluster.find(position);
      const spec = { ...node.spec, availability };
      await control.updateNode({ nodeId: node.id, version: node.meta.version, spec, address: '' });
      if (availability === 'pause') await this.#update('start-first');
    }
  }

  /** All tasks that are wanted run, and those that had to go are gone. */
  async #settled(name: string, { sinceVersion = 0, goneTaskId = '' } = {}): Promise<void> {
    const { control } = this.#world.manager;
    await eventually(async () => {
      const { service } = await control.getService({ service: name });
      const state = service.updateStatus?.state ?? 'completed';
      if (state !== 'completed')
        throw new Error(`the update of ${name} is ${state}: ${service.updateStatus?.message}`);
      const running = (await tasksOf(this.#world.manager, service.id)).filter(isRunning);
      const isCurrent = running.every((task) => task.specVersion >= sinceVersion && task.id !== goneTaskId);
      return isCurrent && running.length === service.spec.mode.replicated?.replicas;
    }, SETTLED_LIMIT_MS);
  }

  async #idOf(name: string): Promise<string> {
    return (await this.#world.manager.control.getService({ service: name })).service.id;
  }

  #changeAt(atMs: number): string {
    const { name = '', fromMs = 0 } = this.#story.findLast((change) => change.fromMs <= atMs) ?? {};
    return `${name}, ${atMs - fromMs} ms in`;
  }

  #report(): SoakReport {
    const isCut = ({ atMs, tookMs }: Failure) =>
      this.#cuts.some(({ fromMs, untilMs }) => atMs + tookMs >= fromMs && atMs <= untilMs);
    const all = this.#clients.flatMap(({ path, asking }) =>
      asking.failures.map((failure) => ({ ...failure, path, during: this.#changeAt(failure.atMs) })),
    );
    const answered = this.#clients.reduce((sum, { asking }) => sum + asking.answered, 0);
    return {
      seed: this.#seed,
      requests: answered + all.length,
      changes: this.#changes,
      failures: all.filter((failure) => !isCut(failure)),
      cutFailures: all.filter(isCut).length,
    };
  }
}

function isRunning({ status, desiredState }: Task): boolean {
  return status.state === 'running' && desiredState === 'running';
}

/** A small generator of numbers from 0 to 1: mulberry32, by Tommy Ettinger. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
