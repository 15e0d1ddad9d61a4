// What creating or updating a service would do, without doing it: what changes, which tasks are made and where there is
// room for them, addresses and ports. Pure. What would be refused is refused here as well.

import { fitsPlacement, takesTasks } from '../../core/eligible-node.ts';
import { SwarmError } from '../../core/errors.ts';
import { feltEndpoint } from '../../core/felt-spec.ts';
import { emptyService, type Service, type ServiceSpec, type Task } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal, isJob } from '../../core/service-mode.ts';
import { isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import type { ExplainResponse, PlanServiceRequest } from '../../proto/generated/control.ts';
import { type Demand, NOWHERE, type Placed, placeDemands } from '../capacity/fit.ts';
import { roomOnNodes } from '../capacity/room.ts';
import { canStay } from '../capacity/stay.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import type { TablesView } from '../store/tables.ts';
import { explanationOf } from './explain.ts';
import { changeConstraint } from './explain-constraints.ts';
import type { Draft } from './explain-task.ts';
import { ingressNetwork, networksOf, tallyNetworks } from './network-use.ts';
import { placedSpec } from './plan-endpoint.ts';
import { requireValid, respecified } from './service-api.ts';
import { specChanges } from './spec-changes.ts';
import { nodesFor } from './task-counts.ts';

/** `ok` is false when some task would find no place or no address. Throws what the change itself would be refused with. */
export function planServiceRequest(
  view: TablesView,
  request: PlanServiceRequest,
  nowMs: number,
): ExplainResponse {
  requireValid(request.spec);
  const service = currentService(view, request);
  const spec = placedSpec(view, request.serviceId, request.spec);
  if (service !== undefined) respecified(service, spec);
  const { specVersion, ...known } = service ?? emptyService;
  const future = { ...known, spec, specVersion: specVersion + 1 };
  const work = workOf(view, future);
  return explanationOf([
    ...explainChanges(service, spec),
    ...explainWork(service, spec, work),
    ...explainPlaces(view, future, work, nowMs),
    ...explainAddresses(view, service, spec, work),
    ...explainPorts(spec),
  ]);
}

function currentService(
  view: TablesView,
  { serviceId, version, spec }: PlanServiceRequest,
): Service | undefined {
  if (serviceId === '') {
    if (view.byName('service', spec.name) === undefined) return undefined;
    throw new SwarmError(
      'already-exists',
      `name conflicts with an existing object: service ${spec.name} already exists`,
    );
  }
  const service = view.service.get(serviceId);
  if (service === undefined) throw new SwarmError('not-found', `service ${serviceId} not found`);
  if (service.specVersion !== version)
    throw new SwarmError(
      'out-of-sequence',
      `service ${service.spec.name}: its spec is number ${service.specVersion}, not ${version}`,
      { hint: 'It was changed meanwhile: look at it again and repeat the change.' },
    );
  return service;
}

interface Work {
  readonly replaced: readonly Task[];
  /** Those that stay and have no place yet: they look for one by what is asked for now. */
  readonly waiting: number;
  /** Those that stay where they are. */
  readonly kept: number;
  /** More than there are now; negative: so many are removed. */
  readonly added: number;
}

/** `future`: the service as it would be. */
function workOf(view: TablesView, future: Service): Work {
  const { id, spec } = future;
  const hasRoom = roomOnNodes(view, future);
  const tasks = view.tasksOfService(id).filter((task) => isWanted(task) && !isTerminal(task.status.state));
  const wanted = isGlobal(spec.mode) ? nodesFor(view, spec).length : wantedReplicas(spec);
  const staying = tasks.slice(0, wanted);
  // Every change of a job begins another iteration.
  const replaced = staying.filter((task) => isJob(spec.mode) || isReplaced(view, task, spec, hasRoom));
  const waiting = staying.filter((task) => !isPlaced(task.status.state) && !replaced.includes(task)).length;
  return {
    replaced,
    waiting,
    kept: staying.length - replaced.length - waiting,
    added: wanted - tasks.length,
  };
}

function isReplaced(
  view: TablesView,
  task: Task,
  spec: ServiceSpec,
  hasRoom: (task: Task) => boolean,
): boolean {
  const before = view.revisionOf(task)?.spec;
  if (before === undefined || feltEndpoint(before.endpoint) !== feltEndpoint(spec.endpoint)) return true;
  const nodeOf = ({ nodeId }: Task) => view.node.get(nodeId);
  return !canStay(task, before.task, spec.task, { nodeOf, hasRoom });
}

function explainChanges(service: Service | undefined, spec: ServiceSpec): Draft[] {
  if (service === undefined) return [{ subject: 'service', text: `${spec.name} would be created` }];
  const changes = specChanges(service.spec, spec);
  const title = `${spec.name}: ${changes.length === 0 ? 'nothing would change' : 'what would change'}`;
  return [
    { subject: 'service', text: title },
    ...changes.map((text): Draft => ({ subject: 'change', depth: 1, text })),
  ];
}

function explainWork(
  service: Service | undefined,
  spec: ServiceSpec,
  { replaced, waiting, kept, added }: Work,
): Draft[] {
  const parts = [
    ...(added > 0 ? [`${added} would be created`] : []),
    ...(added < 0 ? [`${-added} would be removed`] : []),
    ...(replaced.length > 0
      ? [`${replaced.length} replaced, ${spec.update.parallelism || 'all'} at a time, ${spec.update.order}`]
      : []),
    ...(waiting > 0 ? [`${waiting} would look for a place again`] : []),
    ...(service !== undefined && kept > 0 ? [`${kept} would stay as they are`] : []),
  ];
  return [{ subject: 'tasks', text: parts.length === 0 ? 'none' : parts.join('; ') }];
}

/** Where there is room for the tasks that are made. */
function explainPlaces(view: TablesView, future: Service, work: Work, nowMs: number): Draft[] {
  const { replaced, waiting, added } = work;
  const { spec } = future;
  const isStartFirst = spec.update.order === 'start-first';
  const going = new Set(isStartFirst ? [] : replaced.map(({ id }) => id));
  const atOnce = isStartFirst
    ? Math.min(replaced.length, spec.update.parallelism || replaced.length)
    : replaced.length;
  const count = Math.max(0, added) + waiting + atOnce;
  if (count === 0) return [];
  const book = ClusterBook.of(view, (taskId) => going.has(taskId));
  book.noteService(future.id, future);
  const demand = { serviceId: future.id, specVersion: future.specVersion, spec, count };
  if (isGlobal(spec.mode)) return placeOnEach(demand, book, nowMs);
  return placeDemands([demand], book, { nowMs }).flatMap((placed) => explainPlaced(view, placed));
}

function explainPlaced(view: TablesView, { bookings, missing, reason, demand }: Placed): Draft[] {
  const places = [...Map.groupBy(bookings, ({ info }) => info.node)]
    .map(([node, { length }]) => `${node.description.hostname || node.id}: ${length}`)
    .sort();
  const isConstrained = reason === NOWHERE && demand.spec.task.placement.constraints.length > 0;
  return [
    ...(places.length > 0 ? [{ subject: 'scheduler', text: `room for them on ${places.join(', ')}` }] : []),
    ...(missing > 0
      ? [
          {
            ok: false,
            subject: 'scheduler',
            text: `no room for ${missing} of ${demand.count} tasks: ${reason}`,
            remedy: isConstrained
              ? changeConstraint(view, demand.spec, { isPlanned: true })
              : 'ask for less or for fewer replicas, or free or add a node (tsswarm node ls)',
          },
        ]
      : []),
  ];
}

/** A service of one task on each node: each node for itself. */
function placeOnEach(demand: Demand, book: ClusterBook, nowMs: number): Draft[] {
  const { placement } = demand.spec.task;
  const among = book.nodes.filter(({ node }) => takesTasks(node) && fitsPlacement(node, placement));
  return among.flatMap(({ node }) => {
    const [placed] = placeDemands([{ ...demand, count: 1 }], book, { nowMs, nodeId: node.id });
    const host = node.description.hostname || node.id;
    if (placed === undefined || placed.missing === 0)
      return [{ subject: 'scheduler', text: `room on ${host}` }];
    const remedy = 'ask for less, exclude the node by a --constraint, or free it';
    return [{ ok: false, subject: 'scheduler', text: `no room on ${host}: ${placed.reason}`, remedy }];
  });
}

function explainAddresses(
  view: TablesView,
  service: Service | undefined,
  spec: ServiceSpec,
  work: Work,
): Draft[] {
  const tallies = tallyNetworks(view);
  const isPart = new Set(
    service === undefined ? [] : service.virtualAddresses.map(({ networkId }) => networkId),
  );
  return networksOf(spec, ingressNetwork(view)?.id).flatMap((id): Draft[] => {
    const network = view.network.get(id);
    const use = tallies.get(id)?.use;
    if (network === undefined || use === undefined || use.capacity === 0) return [];
    const free = use.capacity - use.taskAddresses - use.serviceAddresses;
    const ofService = spec.endpoint.mode === 'vip' && !isPart.has(id) ? 1 : 0;
    const needed = Math.max(0, work.added) + ofService;
    const text = `network ${network.spec.name}: ${needed} addresses needed, ${free} free`;
    if (needed <= free) return [{ subject: 'allocator', text }];
    const remedy = `give it more addresses: tsswarm network update --subnet-add SUBNET ${network.spec.name}`;
    return [{ ok: false, subject: 'allocator', text, remedy }];
  });
}

/** That others do not have them has been checked with the spec. */
function explainPorts({ endpoint }: ServiceSpec): Draft[] {
  const ports = endpoint.ports.filter(
    ({ publishMode, publishedPort }) => publishMode === 'ingress' && publishedPort > 0,
  );
  if (ports.length === 0) return [];
  const names = ports.map(({ publishedPort, protocol }) => `${publishedPort}/${protocol}`);
  return [{ subject: 'allocator', text: `free to publish: ${names.join(', ')}` }];
}
