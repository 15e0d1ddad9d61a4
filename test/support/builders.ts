// Builders for objects in planner tests: say what matters, the rest is ordinary.

import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyMeta,
  emptyNetwork,
  emptyNetworkSpec,
  emptyNodeDescription,
  emptyService,
  emptySubnet,
  type Network,
  type NetworkSpec,
  type Node,
  type Service,
  type ServiceSpec,
  type Task,
  type TaskState,
} from '../../core/generated/objects.ts';
import type { StoreEvent } from '../../manager/store/apply-entry.ts';
import { type Kind, type Kinds, revisionId, Tables } from '../../manager/store/tables.ts';

export const NOW_MS = 1_700_000_000_000;

export interface NodeOptions extends Partial<Pick<Node, 'spec' | 'status' | 'role'>> {
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly availability?: Node['spec']['availability'];
  readonly state?: Node['status']['state'];
  readonly architecture?: string;
}

export function aNode(id: string, options: NodeOptions = {}): Node {
  const {
    cpus = 4,
    memoryBytes = 8 * 2 ** 30,
    labels = {},
    availability = 'active',
    state = 'ready',
    architecture = 'amd64',
  } = options;
  return {
    id,
    meta: emptyMeta,
    spec: { name: '', labels, availability, desiredRole: 'worker' },
    description: {
      ...emptyNodeDescription,
      hostname: id,
      platform: { os: 'linux', architecture },
      resources: { cpuNanos: cpus * 1e9, memoryBytes },
    },
    status: { state, message: '', address: '10.0.0.1', sinceMs: 0 },
    role: options.role ?? 'worker',
    roleMessage: '',
    renewalAskedAtMs: 0,
    dataPathAddress: '',
    tunnelAddress: '',
  };
}

export function aServiceObject(
  id: string,
  replicas: number,
  change: (spec: ServiceSpec) => ServiceSpec = (spec) => spec,
): Service {
  const spec = { ...newServiceSpec(id, { image: 'busybox' }), mode: { replicated: { replicas } } };
  return { ...emptyService, id, spec: change(spec), specVersion: 1 };
}

/** An overlay network that has its addresses. */
export function aNetwork(id: string, spec: Partial<NetworkSpec> = {}): Network {
  return {
    ...emptyNetwork,
    id,
    spec: { ...emptyNetworkSpec, name: id, ...spec },
    vni: 0x100000,
    subnets: [{ ...emptySubnet, subnet: '10.0.1.0/24', gateway: '10.0.1.1' }],
  };
}

export interface TaskOptions {
  readonly slot?: number;
  readonly nodeId?: string;
  readonly state?: TaskState;
  readonly desired?: TaskState;
  readonly specVersion?: number;
  readonly createdAtMs?: number;
  readonly endedAtMs?: number;
  readonly runningAtMs?: number;
  readonly notBeforeMs?: number;
  readonly attachments?: Task['attachments'];
  readonly files?: Task['status']['files'];
}

let counter = 0;

export function aTask(serviceId: string, options: TaskOptions = {}): Task {
  const {
    slot = 1,
    nodeId = 'n1',
    state = 'running',
    desired = 'running',
    specVersion = 1,
    createdAtMs = NOW_MS - 60_000,
  } = options;
  return {
    id: `task${String(++counter).padStart(4, '0')}`,
    meta: { version: counter, createdAtMs, updatedAtMs: createdAtMs },
    serviceId,
    specVersion,
    slot,
    nodeId,
    genericResources: [],
    status: {
      state,
      timestampMs: options.endedAtMs ?? createdAtMs,
      message: '',
      error: state === 'failed' ? 'task: non-zero exit (1)' : '',
      ports: [],
      runningAtMs: options.runningAtMs ?? (state === 'running' ? createdAtMs : 0),
      files: options.files ?? [],
    },
    desiredState: desired,
    notBeforeMs: options.notBeforeMs ?? 0,
    attachments: options.attachments ?? [],
  };
}

/** Tables that hold these objects, with a revision for every spec version that a service or task names. */
export function tablesOf(
  services: readonly Service[],
  tasks: readonly Task[],
  nodes: readonly Node[] = [aNode('n1')],
): Tables {
  const tables = new Tables();
  for (const node of nodes) tables.put('node', node);
  for (const task of tasks) tables.put('task', task);
  for (const service of services) {
    tables.put('service', service);
    const addRevision = (specVersion: number, spec: ServiceSpec) =>
      tables.put('revision', {
        id: revisionId(service.id, specVersion),
        meta: emptyMeta,
        serviceId: service.id,
        specVersion,
        spec,
        registryAuth: false,
      });
    if (service.previousSpec !== undefined) addRevision(service.previousSpecVersion, service.previousSpec);
    addRevision(service.specVersion, service.spec);
  }
  return tables;
}

/** Changes an object as an applied entry would; returns the event of it. */
export function putInto<K extends Kind>(tables: Tables, kind: K, object: Kinds[K]): StoreEvent<K> {
  const previous = tables.get(kind, object.id) as Kinds[K] | undefined;
  tables.put(kind, object);
  return previous === undefined
    ? { kind, action: 'created', object }
    : { kind, action: 'updated', object, previous };
}

/** The same for an object that goes. */
export function removeFrom<K extends Kind>(tables: Tables, kind: K, id: string): StoreEvent<K> {
  const object = tables.get(kind, id) as Kinds[K];
  tables.delete(kind, id);
  return { kind, action: 'removed', object };
}
