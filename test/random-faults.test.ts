// Everything at once, at random: services come, change and go while containers end, the engine fails and slows down,
// manager and agent restart. In the end every promise has to be kept. The seed of a run is printed; TSSWARM_TEST_SEED
// repeats it, TSSWARM_TEST_STEPS makes it longer.

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, SwarmError } from '../core/errors.ts';
import type { Service, ServiceSpec, Task } from '../core/generated/objects.ts';
import { isTerminal, isWanted } from '../core/task-state.ts';
import { aService, TestCluster } from './support/cluster-in-process.ts';
import { eventually } from './support/eventually.ts';
import { type Chance, type Faults, injectFaults, seededChance } from './support/faults.ts';

const NAMES = ['web', 'api', 'db', 'cache'];
const REPLICAS_MAX = 5;
const CONVERGE_LIMIT_MS = 30_000;
const HISTORY_LIMIT = 5;

type Act = () => Promise<unknown>;

/** One run: what it may do, each with its weight. */
class Chaos {
  readonly cluster: TestCluster;
  readonly #chance: Chance;
  readonly #steps: string[] = [];
  #release = 0;

  constructor(cluster: TestCluster, chance: Chance) {
    this.cluster = cluster;
    this.#chance = chance;
  }

  get story(): string {
    return this.#steps.join('\n');
  }

  async step(): Promise<void> {
    const actions: [number, string, Act][] = [
      [4, 'create', () => this.#create()],
      [5, 'update', () => this.#update()],
      [3, 'scale', () => this.#scale()],
      [2, 'rollback', () => this.#rollback()],
      [1, 'remove', () => this.cluster.control.removeService({ service: this.#pick(NAMES) })],
      [8, 'exit', async () => this.#exit()],
      [1, 'image vanishes', async () => this.cluster.engine.registry.delete('busybox:latest')],
      [2, 'image returns', async () => this.cluster.engine.registry.add('busybox:latest')],
      [1, 'manager restarts', () => this.#restartManager()],
      [1, 'agent restarts', () => this.#restartAgent()],
      [6, 'nothing', () => delay(this.#chance() * 60)],
    ];
    const [name, act] = this.#pick(
      actions.flatMap(([weight, ...action]) => Array<[string, Act]>(weight).fill(action)),
    );
    try {
      await act();
      this.#steps.push(name);
    } catch (error) {
      // Refusals are part of life; anything else is a bug.
      if (!(error instanceof SwarmError) || error.code === 'internal') throw error;
      this.#steps.push(`${name}: ${messageOf(error)}`);
    }
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#chance() * values.length)] as T;
  }

  #spec(name: string): ServiceSpec {
    const replicas = Math.floor(this.#chance() * (REPLICAS_MAX + 1));
    return aService(name, {
      replicas,
      container: { env: [`RELEASE=${++this.#release}`] },
      change: (spec) => ({
        ...spec,
        update: {
          ...spec.update,
          parallelism: Math.floor(this.#chance() * 3),
          order: this.#pick(['stop-first', 'start-first']),
          failureAction: this.#pick(['pause', 'continue', 'rollback']),
        },
      }),
    });
  }

  async #service(): Promise<Service> {
    return (await this.cluster.control.getService({ service: this.#pick(NAMES) })).service;
  }

  #create(): Promise<unknown> {
    return this.cluster.control.createService({ spec: this.#spec(this.#pick(NAMES)) });
  }

  async #update(): Promise<void> {
    const { id, specVersion, spec } = await this.#service();
    const next = this.#spec(spec.name);
    await this.cluster.control.updateService({
      serviceId: id,
      version: specVersion,
      spec: next,
      rollback: false,
    });
  }

  async #scale(): Promise<void> {
    const { id, specVersion, spec } = await this.#service();
    const replicas = Math.floor(this.#chance() * (REPLICAS_MAX + 1));
    const next = { ...spec, mode: { replicated: { replicas } } };
    await this.cluster.control.updateService({
      serviceId: id,
      version: specVersion,
      spec: next,
      rollback: false,
    });
  }

  async #rollback(): Promise<void> {
    const { id, specVersion } = await this.#service();
    await this.cluster.control.updateService({ serviceId: id, version: specVersion, rollback: true });
  }

  #exit(): void {
    const { engine } = this.cluster;
    const running = [...engine.running].filter(([, { status }]) => status.state === 'running');
    if (running.length > 0) engine.exit(this.#pick(running)[0], this.#pick([0, 1, 137]));
  }

  async #restartManager(): Promise<void> {
    await this.cluster.stopManager();
    await delay(this.#chance() * 50);
    await this.cluster.startManager();
  }

  async #restartAgent(): Promise<void> {
    await this.cluster.stopAgent();
    await delay(this.#chance() * 50);
    await this.cluster.startAgent();
  }
}

/** Updates that had to stop are given another push, as an operator would. */
async function mendPaused(cluster: TestCluster): Promise<void> {
  for (const { service } of (await cluster.control.listServices({})).services) {
    if (!service.updateStatus?.state.includes('paused')) continue;
    const { id, specVersion, spec } = service;
    const task = { ...spec.task, forceUpdate: spec.task.forceUpdate + 1 };
    await cluster.control.updateService({
      serviceId: id,
      version: specVersion,
      spec: { ...spec, task },
      rollback: false,
    });
  }
}

async function everything(cluster: TestCluster): Promise<{ tasks: Task[]; services: Service[] }> {
  const tasks: Task[] = [];
  for await (const page of cluster.control.listTasks({ serviceIds: [], nodeIds: [] }))
    tasks.push(...page.tasks);
  const services = (await cluster.control.listServices({})).services.map(({ service }) => service);
  return { tasks, services };
}

async function checkPromises(cluster: TestCluster): Promise<void> {
  const { tasks, services } = await everything(cluster);
  for (const { id, spec, updateStatus } of services) {
    const own = tasks.filter((task) => task.serviceId === id);
    const wanted = own.filter(isWanted);
    const replicas = spec.mode.replicated?.replicas ?? 0;
    const summary = own
      .map((t) => `${t.slot} v${t.specVersion} ${t.status.state}→${t.desiredState}`)
      .join(', ');
    assert.equal(new Set(wanted.map(({ slot }) => slot)).size, wanted.length, `a slot twice: ${summary}`);
    assert.equal(wanted.length, replicas, `${spec.name} wants ${replicas}: ${summary}`);
    assert.ok(
      wanted.every(({ status }) => status.state === 'running'),
      `${spec.name} does not run (${updateStatus?.state}): ${summary}`,
    );
    const env = spec.task.container.env.join();
    for (const task of wanted)
      assert.equal(
        cluster.engine.running.get(task.id)?.config.env.join(),
        env,
        `${spec.name} is of an old spec`,
      );
    for (const group of Map.groupBy(own, ({ slot }) => slot).values())
      assert.ok(
        group.filter(({ status }) => isTerminal(status.state)).length <= HISTORY_LIMIT,
        'history grows',
      );
  }
  const known = new Set(services.map(({ id }) => id));
  assert.deepEqual(
    tasks.filter(({ serviceId }) => !known.has(serviceId)),
    [],
    'tasks of no service',
  );
  const running = tasks.filter(isWanted).map(({ id }) => id);
  assert.deepEqual([...cluster.engine.running.keys()].sort(), running.toSorted(), 'containers');
  assert.deepEqual([...cluster.network.endpoints.keys()].sort(), running.toSorted(), 'endpoints');
  const journal = await readdir(path.join(cluster.directory, 'tasks'));
  const assigned = tasks.filter(({ nodeId }) => nodeId !== '').map(({ id }) => `${id}.json`);
  assert.deepEqual(
    journal.filter((name) => !assigned.includes(name)),
    [],
    'journal of no task',
  );
}

test('whatever happens, in the end everything is as it was asked for', async (t) => {
  const seed = Number(process.env['TSSWARM_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const steps = Number(process.env['TSSWARM_TEST_STEPS'] ?? 120);
  t.diagnostic(`TSSWARM_TEST_SEED=${seed}`);
  const chance = seededChance(seed);
  await using cluster = await TestCluster.start();
  const faults: Faults = { failureRatio: 0.08, slowRatio: 0.3 };
  injectFaults(cluster.engine, cluster.network, chance, faults);
  cluster.engine.onStart = () => {
    if (chance() < faults.failureRatio / 2) throw new SwarmError('internal', 'exec format error');
  };
  const chaos = new Chaos(cluster, chance);

  try {
    for (let step = 0; step < steps; step++) await chaos.step();
    faults.failureRatio = 0;
    faults.slowRatio = 0;
    cluster.engine.registry.add('busybox:latest');
    await eventually(async () => {
      await mendPaused(cluster);
      await checkPromises(cluster);
      return true;
    }, CONVERGE_LIMIT_MS);
  } catch (error) {
    throw new Error(`seed ${seed}: ${messageOf(error)}\n${chaos.story}`, { cause: error });
  }
});
