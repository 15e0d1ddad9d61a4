// Operators of a simulated cluster: what they ask for, drawn by chance, through the calls that the command line makes.

import { newServiceSpec } from '../../core/defaults.ts';
import {
  type ClusterSpec,
  emptyFileReference,
  emptyNetworkSpec,
  emptyPayloadSpec,
  emptyPlacement,
  emptyPortConfig,
  type FileReference,
  type GenericResource,
  type Node,
  type PayloadSpec,
  type PortConfig,
  type RegistryAuth,
  type Secret,
  type Service,
  type ServiceMode,
  type ServiceSpec,
  type UpdateConfig,
} from '../../core/generated/objects.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import { isJob } from '../../core/service-mode.ts';
import type { ControlService } from '../../proto/generated/control.ts';
import type { Client } from '../../rpc/client.ts';
import type { Chance } from '../support/faults.ts';
import type { Life } from './sim-tasks.ts';

export type Control = Client<typeof ControlService>;

export const CALL = { timeoutMs: 10_000 };
const SERVICES_FIRST = 4;
const SERVICES_MAX = 8;
const NETWORKS = ['wide', 'narrow', 'spare'];
/** One more than are kept. */
const VERSIONS_AT_ONCE = 6;
const SECRETS = ['alpha', 'beta'];
const registryAuth: RegistryAuth = {
  registry: parseImageReference('busybox').registry,
  username: 'operator',
  password: 'password',
  identityToken: '',
};

export class Operators {
  readonly #chance: Chance;
  #named = 0;

  constructor(chance: Chance) {
    this.#chance = chance;
  }

  /** One thing that operators do; the name goes into the report. */
  draw(): { readonly name: string; readonly act: (control: Control) => Promise<unknown> } {
    const acts: Record<string, (control: Control) => Promise<unknown>> = {
      create: (control) => this.#create(control),
      'create another': (control) => this.#create(control),
      'create a third': (control) => this.#create(control),
      scale: (control) => this.#change(control, (spec) => this.#scaled(spec)),
      update: (control) => this.#change(control, (spec) => this.#respecified(spec)),
      'update again': (control) => this.#change(control, (spec) => this.#respecified(spec)),
      force: (control) => this.#change(control, forced),
      stop: (control) => this.#change(control, (spec) => ({ ...spec, stopped: !spec.stopped })),
      rollback: (control) => this.#rollback(control),
      remove: (control) => this.#remove(control),
      drain: (control) => this.drain(control),
      node: (control) => this.#availability(control),
      'node again': (control) => this.#availability(control),
      label: (control) => this.#label(control),
      network: (control) => this.#network(control),
      files: (control) => this.#files(control),
      'files again': (control) => this.#files(control),
      settings: (control) => this.#settings(control),
    };
    const name = this.#pick(Object.keys(acts));
    return { name, act: acts[name] as (control: Control) => Promise<unknown> };
  }

  /** Networks that are there from the beginning. */
  async prepare(control: Control): Promise<void> {
    const narrow = [{ subnet: '10.99.0.0/28', ipRange: '', gateway: '', auxiliaryAddresses: {} }];
    const ipv6 = this.#chance() < 0.3;
    await control.createNetwork({ spec: { ...emptyNetworkSpec, name: 'wide', ipv6 } }, CALL);
    await control.createNetwork({ spec: { ...emptyNetworkSpec, name: 'narrow', subnets: narrow } }, CALL);
    await control.createSecret(payload('alpha'), CALL);
    await control.createConfig(payload('gamma'), CALL);
    for (let count = 0; count < SERVICES_FIRST; count++) await this.#create(control);
  }

  /**
   * Nodes that are away for good would keep services waiting: those that are not among `ids` are removed, all others take
   * tasks again, but for one now and then.
   */
  async reopen(control: Control, ids: ReadonlySet<string>): Promise<void> {
    const { nodes } = await control.listNodes({}, CALL);
    for (const node of nodes) {
      if (!ids.has(node.id)) {
        await control.removeNode({ node: node.id, force: true }, CALL);
        continue;
      }
      const availability = this.#chance() < 0.15 ? 'drain' : 'active';
      if (node.spec.availability !== availability) await this.#respecify(control, node, { availability });
    }
  }

  async #create(control: Control): Promise<void> {
    const { services } = await control.listServices({}, CALL);
    if (services.length >= SERVICES_MAX) return;
    const spec = this.#newSpec(`s${++this.#named}`);
    await control.createService({ spec, ...(this.#chance() < 0.2 && { registryAuth }) }, CALL);
  }

  async #service(control: Control): Promise<Service | undefined> {
    const { services } = await control.listServices({}, CALL);
    return this.#pick(services)?.service;
  }

  async #change(control: Control, change: (spec: ServiceSpec) => ServiceSpec): Promise<void> {
    const service = await this.#service(control);
    if (service === undefined) return;
    const spec = change(service.spec);
    await control.updateService(
      {
        serviceId: service.id,
        version: service.specVersion,
        spec,
        rollback: false,
        ...(this.#chance() < 0.1 && { registryAuth }),
      },
      CALL,
    );
  }

  async #rollback(control: Control): Promise<void> {
    const service = await this.#service(control);
    if (service?.previousSpec === undefined) return;
    const rollbackTo = this.#chance() < 0.3 ? Math.max(1, service.specVersion - 2) : undefined;
    await control.updateService(
      {
        serviceId: service.id,
        version: service.specVersion,
        rollback: true,
        ...(rollbackTo !== undefined && { rollbackTo }),
      },
      CALL,
    );
  }

  async #remove(control: Control): Promise<void> {
    const service = await this.#service(control);
    if (service !== undefined) await control.removeService({ service: service.id }, CALL);
  }

  async #availability(control: Control): Promise<void> {
    const { nodes } = await control.listNodes({}, CALL);
    const node = this.#pick(nodes);
    if (node === undefined) return;
    const availability = this.#pick(['active', 'active', 'active', 'drain', 'pause'] as const);
    await this.#respecify(control, node, { availability });
  }

  /** Of a node, some tasks at a time, whether they fit elsewhere or not. */
  async drain(control: Control): Promise<void> {
    const { nodes } = await control.listNodes({}, CALL);
    const node = this.#pick(nodes);
    if (node === undefined) return;
    const pace = { drainRate: this.#pick([0, 1, 1, 2]), drainDeadlineMs: this.#pick([0, 20_000, 60_000]) };
    await this.#respecify(control, node, { availability: 'drain', ...pace });
  }

  async #label(control: Control): Promise<void> {
    const { nodes } = await control.listNodes({}, CALL);
    const node = this.#pick(nodes);
    if (node !== undefined)
      await this.#respecify(control, node, { labels: { zone: this.#pick(['a', 'a', 'b']) } });
  }

  async #respecify(control: Control, node: Node, change: Partial<Node['spec']>): Promise<void> {
    const spec = { ...node.spec, ...change };
    const { version } = node.meta;
    await control.updateNode({ nodeId: node.id, version, spec, address: '', force: true }, CALL);
  }

  /** What the cluster keeps, and how long it waits. */
  async #settings(control: Control): Promise<void> {
    const { cluster } = await control.getCluster({}, CALL);
    const change = this.#pick<Partial<ClusterSpec>>([
      { taskHistoryLimit: this.#pick([0, 1, 5]) },
      { specHistoryLimit: this.#pick([0, 1, 3]) },
      { orphanAfterMs: this.#pick([0, 10_000, 60_000]) },
      { nodeSuspectAfterMs: this.#pick([0, 2_500, 6_000]) },
      { rescheduleMaxPercent: this.#pick([0, 50, 100]) },
    ]);
    const rotations = { rotateWorkerToken: false, rotateManagerToken: false, rotateUnlockKey: false };
    const { version } = cluster.meta;
    await control.updateCluster({ version, spec: { ...cluster.spec, ...change }, ...rotations }, CALL);
  }

  async #network(control: Control): Promise<void> {
    const drawn = this.#chance();
    if (drawn < 0.3) await this.#widen(control, drawn < 0.15 ? 'narrow' : 'wide');
    else if (drawn < 0.65)
      await control.createNetwork({ spec: { ...emptyNetworkSpec, name: 'spare' } }, CALL);
    else await control.removeNetwork({ network: 'spare' }, CALL);
  }

  /** One more subnet, or a wider first one. */
  async #widen(control: Control, name: string): Promise<void> {
    const { network } = await control.getNetwork({ network: name, verbose: false }, CALL);
    const { spec, meta } = network;
    const subnet = this.#pick(['10.99.0.0/27', '10.98.0.0/29', '10.97.0.0/30']);
    const isFirst = subnet.startsWith('10.99.');
    const others = isFirst ? spec.subnets.slice(1) : spec.subnets;
    const subnets = [{ subnet, ipRange: '', gateway: '', auxiliaryAddresses: {} }, ...others];
    const request = { networkId: network.id, version: meta.version, spec: { ...spec, subnets } };
    await control.updateNetwork(request, CALL);
  }

  /** A secret or config that comes, gets another version or goes. */
  async #files(control: Control): Promise<void> {
    const drawn = this.#chance();
    if (drawn < 0.15) await control.createSecret(payload(this.#pick(SECRETS)), CALL);
    else if (drawn < 0.3) await control.createConfig(payload('gamma'), CALL);
    else if (drawn < 0.4) await control.removeSecret({ source: this.#pick(SECRETS) }, CALL);
    else if (drawn < 0.5) await control.removeConfig({ source: 'gamma' }, CALL);
    else if (drawn < 0.75) {
      const { secret } = await control.getSecret({ source: this.#pick(SECRETS) }, CALL);
      await control.updateSecret(nextVersion(secret), CALL);
    } else {
      const { config } = await control.getConfig({ source: 'gamma' }, CALL);
      await control.updateConfig(nextVersion(config), CALL);
    }
  }

  /** So many new versions of all secrets and configs that the oldest are not kept. */
  async renewFiles(control: Control): Promise<void> {
    for (let count = 0; count < VERSIONS_AT_ONCE; count++) {
      const { secrets } = await control.listSecrets({}, CALL);
      for (const secret of secrets) await control.updateSecret(nextVersion(secret), CALL);
      const { configs } = await control.listConfigs({}, CALL);
      for (const config of configs) await control.updateConfig(nextVersion(config), CALL);
    }
  }

  #withFiles(spec: ServiceSpec): ServiceSpec {
    const files = (names: readonly string[]): FileReference[] =>
      names
        .filter(() => this.#chance() < 0.25)
        .map((name) => ({
          ...emptyFileReference,
          sourceId: name,
          version: this.#pick([0, 0, 0, 1, 2]),
          target: `/${name}`,
          mode: 0o444,
        }));
    const container = { ...spec.task.container, secrets: files(SECRETS), configs: files(['gamma']) };
    return { ...spec, task: { ...spec.task, container } };
  }

  #newSpec(name: string): ServiceSpec {
    const mode = this.#newMode();
    const life: Life = isJob(mode) ? 'job' : this.#pick(['steady', 'steady', 'flaky'] as const);
    const base = newServiceSpec(name, { image: 'busybox', env: [`LIFE=${life}`], stopGracePeriodMs: 2_000 });
    const update = this.#updateConfig();
    const failureAction = this.#pick(['pause', 'continue'] as const);
    const rollback = { ...this.#updateConfig(), failureAction };
    const spec: ServiceSpec = {
      ...base,
      mode,
      ...(!isJob(mode) && { update, rollback }),
      endpoint: { ...base.endpoint, ports: this.#ports(mode) },
      task: {
        ...base.task,
        restart: {
          condition: this.#pick(
            isJob(mode) ? (['on-failure', 'none'] as const) : (['any', 'any', 'any', 'on-failure'] as const),
          ),
          delayMs: this.#pick([0, 1_000, 5_000]),
          maxAttempts: this.#pick([0, 0, 0, 3]),
          windowMs: this.#pick([0, 0, 30_000]),
        },
      },
    };
    return this.#withPlace(this.#withNetworks(this.#withFiles(spec)));
  }

  #newMode(): ServiceMode {
    const kind = this.#pick([
      'replicated',
      'replicated',
      'replicated',
      'global',
      'job',
      'globalJob',
    ] as const);
    if (kind === 'global') return { global: {} };
    if (kind === 'globalJob') return { globalJob: {} };
    const count = Math.floor(this.#chance() * 7);
    if (kind === 'replicated') return { replicated: { replicas: count } };
    return { replicatedJob: { totalCompletions: count, maxConcurrent: Math.floor(this.#chance() * 4) } };
  }

  #updateConfig(): UpdateConfig {
    return {
      parallelism: this.#pick([1, 1, 2, 0]),
      delayMs: this.#pick([0, 0, 3_000]),
      failureAction: this.#pick(['pause', 'continue', 'rollback'] as const),
      monitorMs: this.#pick([1_000, 5_000]),
      maxFailureRatio: this.#pick([0, 0, 0.5]),
      order: this.#pick(['stop-first', 'start-first'] as const),
      deadlineMs: this.#pick([30_000, 90_000]),
    };
  }

  #ports(mode: ServiceMode): PortConfig[] {
    const drawn = this.#chance();
    if (drawn < 0.6 || isJob(mode)) return [];
    const isOfHost = drawn < 0.85;
    const port: PortConfig = {
      ...emptyPortConfig,
      targetPort: 80,
      publishedPort: isOfHost ? this.#pick([8080, 8081]) : this.#pick([0, 9000, 9001]),
      publishMode: isOfHost ? 'host' : 'ingress',
    };
    const another: PortConfig = {
      ...emptyPortConfig,
      targetPort: 81,
      publishedPort: 8082,
      publishMode: 'host',
    };
    return this.#chance() < 0.2 ? [port, another] : [port];
  }

  #withNetworks(spec: ServiceSpec): ServiceSpec {
    const networks = NETWORKS.filter((name) => this.#chance() < (name === 'spare' ? 0.05 : 0.35)).map(
      (networkId) => ({
        networkId,
        aliases: [],
        virtualAddresses:
          networkId === 'narrow' && this.#chance() < 0.15 ? [this.#pick(['10.99.0.4', '10.99.0.9'])] : [],
        options: {},
      }),
    );
    const mode = spec.endpoint.ports.length === 0 && this.#chance() < 0.2 ? 'dnsrr' : 'vip';
    return { ...spec, endpoint: { ...spec.endpoint, mode }, task: { ...spec.task, networks } };
  }

  #withPlace(spec: ServiceSpec): ServiceSpec {
    const cpuNanos = this.#pick([0, 0, 0.5e9, 1e9, 2e9]);
    const placement = {
      ...emptyPlacement,
      constraints: this.#pick([[], [], ['node.labels.zone==a'], ['node.labels.zone!=b']]),
      preferences: this.#pick([[], [], ['spread=node.labels.zone']]),
      maxReplicasPerNode: spec.mode.replicated === undefined ? 0 : this.#pick([0, 0, 0, 1, 2]),
      affinities: this.#affinities(spec.name),
      strategy: this.#pick(['spread', 'spread', 'binpack'] as const),
      platforms: this.#pick([[], [], [], [], [X86], [ARM], [X86, ARM]]),
    };
    const isEven =
      spec.mode.replicated !== undefined &&
      placement.strategy === 'spread' &&
      placement.preferences.length + placement.affinities.length === 0;
    const rebalance = isEven && this.#chance() < 0.5;
    const generic = this.#pick([
      [],
      [],
      [],
      [],
      [cards(1)],
      [cards(2)],
      [{ kind: 'SSD', count: 1, names: [] }],
    ]);
    const { resources } = spec.task;
    const memoryBytes = this.#pick([0, 0, 0, 1, 3]) * 2 ** 30;
    const reservations = { cpuNanos, memoryBytes };
    return {
      ...spec,
      task: {
        ...spec.task,
        placement: { ...placement, rebalance },
        resources: { ...resources, generic, reservations },
      },
    };
  }

  /** Of services that there are, were or will be. */
  #affinities(own: string): string[] {
    const drawn = this.#chance();
    const other = `s${1 + Math.floor(this.#chance() * (this.#named + 1))}`;
    if (drawn < 0.08 && other !== own) return [`service==${other}`];
    if (drawn < 0.16) return [`prefer:service${this.#pick(['==', '!='])}${other === own ? 's0' : other}`];
    return drawn < 0.3 ? [`service!=${other}`] : [];
  }

  #scaled(spec: ServiceSpec): ServiceSpec {
    const count = Math.floor(this.#chance() * 9);
    if (spec.mode.replicated !== undefined) return { ...spec, mode: { replicated: { replicas: count } } };
    if (spec.mode.replicatedJob === undefined) return forced(spec);
    return {
      ...spec,
      mode: { replicatedJob: { maxConcurrent: this.#pick([0, 1, 2, 3]), totalCompletions: count } },
    };
  }

  #respecified(spec: ServiceSpec): ServiceSpec {
    const kind = this.#pick(['life', 'place', 'networks', 'ports', 'config', 'labels', 'files'] as const);
    if (kind === 'place') return this.#withPlace(spec);
    if (kind === 'files') return this.#withFiles(spec);
    if (kind === 'networks') return this.#withNetworks(spec);
    if (kind === 'ports')
      return { ...spec, endpoint: { ...spec.endpoint, mode: 'vip', ports: this.#ports(spec.mode) } };
    if (kind === 'labels') {
      const drawn = this.#chance();
      if (drawn < 0.5) return { ...spec, labels: { at: String(drawn) } };
      // Of a zone that no node is in as well.
      const zone = ['a', 'b', 'c'][Math.floor(drawn * 8) - 4];
      return withConstraints(spec, zone === undefined ? [] : [`node.labels.zone==${zone}`]);
    }
    if (kind === 'config') return forced(isJob(spec.mode) ? spec : { ...spec, update: this.#updateConfig() });
    const lives = isJob(spec.mode)
      ? (['job', 'job', 'bad'] as const)
      : (['steady', 'steady', 'flaky', 'bad'] as const);
    const container = { ...spec.task.container, env: [`LIFE=${this.#pick(lives)}`] };
    return { ...spec, task: { ...spec.task, container } };
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#chance() * values.length)] as T;
  }
}

const X86 = { os: 'linux', architecture: 'amd64' };
const ARM = { os: 'linux', architecture: 'arm64' };

/** A version of a secret or config. */
function payload(name: string): { readonly spec: PayloadSpec; readonly data: Uint8Array } {
  return { spec: { ...emptyPayloadSpec, name }, data: Buffer.from(name) };
}

function nextVersion({ id, meta: { version }, spec }: Pick<Secret, 'id' | 'meta' | 'spec'>) {
  return { ...payload(spec.name), id, version };
}

function cards(count: number): GenericResource {
  return { kind: 'GPU', count, names: [] };
}

function withConstraints(spec: ServiceSpec, constraints: readonly string[]): ServiceSpec {
  return { ...spec, task: { ...spec.task, placement: { ...spec.task.placement, constraints } } };
}

function forced(spec: ServiceSpec): ServiceSpec {
  return { ...spec, task: { ...spec.task, forceUpdate: spec.task.forceUpdate + 1 } };
}
