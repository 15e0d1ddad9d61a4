// Lists of tasks, as `service ps` and `node ps` show them: slot by slot, newest first, older tasks of a slot drawn as
// branches below it.

import type { FileReference, Node, Service, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import { FORMER_LIMITS } from '../../core/task-state.ts';
import type { Control } from '../connection.ts';
import { formatList, type Row } from '../format/list-format.ts';
import { compareNames } from '../names.ts';
import { type Filters, matchesFilter, matchesLabels } from '../output/filter.ts';
import { capitalize, formatElapsed, shortId, truncate } from '../output/human.ts';
import { withoutDigest } from '../output/image-name.ts';
import { formatPorts } from '../output/ports.ts';

const ERROR_LENGTH_MAX = 30;
const TITLES = {
  ID: 'ID',
  Name: 'NAME',
  Image: 'IMAGE',
  Node: 'NODE',
  DesiredState: 'DESIRED STATE',
  CurrentState: 'CURRENT STATE',
  Error: 'ERROR',
  Ports: 'PORTS',
  Addresses: 'ADDRESSES',
  Secrets: 'SECRETS',
  Configs: 'CONFIGS',
};
const LAYOUT =
  '{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}';

/** The spec that each task was made from, by "<service id>.<spec version>". */
export type SpecsByRevision = ReadonlyMap<string, ServiceSpec>;

export interface TaskList {
  readonly tasks: readonly Task[];
  readonly specs: SpecsByRevision;
  readonly nodes: readonly Node[];
  readonly services: readonly Service[];
  readonly nowMs: number;
}

export interface TaskListOptions {
  readonly format: string | undefined;
  readonly isQuiet: boolean | undefined;
  readonly isFull: boolean;
  readonly showsIds: boolean;
}

export async function readTasks(
  control: Control,
  {
    serviceIds = [],
    nodeIds = [],
  }: { readonly serviceIds?: readonly string[]; readonly nodeIds?: readonly string[] },
): Promise<{ tasks: Task[]; specs: SpecsByRevision }> {
  const tasks: Task[] = [];
  const specs = new Map<string, ServiceSpec>();
  for await (const page of control.listTasks({ serviceIds, nodeIds })) {
    tasks.push(...page.tasks);
    for (const { id, spec } of page.revisions) specs.set(id, spec);
  }
  return { tasks, specs };
}

export function specOf(task: Task, specs: SpecsByRevision): ServiceSpec | undefined {
  return specs.get(`${task.serviceId}.${task.specVersion}`);
}

/** A file of a task and the version that it is of. */
export interface TaskFileVersion {
  readonly id: string;
  readonly name: string;
  readonly target: string;
  readonly version: number;
}

/** The versions of secrets and configs that a task has. */
export function filesOf(
  { status }: Task,
  spec: ServiceSpec | undefined,
): Readonly<Record<'secrets' | 'configs', readonly TaskFileVersion[]>> {
  const { secrets = [], configs = [] } = spec?.task.container ?? {};
  const versioned = (references: readonly FileReference[], first: number) =>
    references.flatMap(({ sourceId, sourceName, target }, position) => {
      const version = status.files[first + position]?.version ?? 0;
      return version === 0 ? [] : [{ id: sourceId, name: sourceName, target, version }];
    });
  return { secrets: versioned(secrets, 0), configs: versioned(configs, secrets.length) };
}

/** "db@3, tls@1" */
function formatVersions(files: readonly TaskFileVersion[]): string {
  return files.map(({ name, version }) => `${name}@${version}`).join(', ');
}

export function formatTasks(list: TaskList, filters: Filters, options: TaskListOptions): string {
  const { format, isQuiet, isFull } = options;
  const names = new TaskNames(list, options.showsIds);
  const selected = list.tasks
    .filter((task) => matchesTask(task, filters, names, list.specs))
    .sort(names.compare);
  const isTable = format === undefined || format.startsWith('table');
  let previous = '';
  const rows = selected.map((task): Row => {
    const name = names.ofTask(task);
    const isHistory = name === previous;
    previous = name;
    const image = specOf(task, list.specs)?.task.container.image ?? '';
    const said = problemOf(task);
    const error = isFull ? said : truncate(said, ERROR_LENGTH_MAX);
    return {
      ID: isFull ? task.id : shortId(task.id),
      Name: isTable && isHistory ? ` \\_ ${name}` : name,
      Image: isFull ? image : withoutDigest(image),
      Node: names.ofNode(task.nodeId),
      DesiredState: capitalize(task.desiredState),
      CurrentState: `${capitalize(task.status.state)} ${formatElapsed(list.nowMs - task.status.timestampMs).toLowerCase()} ago`,
      Error: error === '' ? '' : `"${error}"`,
      Ports: formatPorts(task.status.ports).join(','),
      Addresses: task.attachments.flatMap(({ addresses }) => addresses).join(', '),
      Secrets: formatVersions(filesOf(task, specOf(task, list.specs)).secrets),
      Configs: formatVersions(filesOf(task, specOf(task, list.specs)).configs),
    };
  });
  return formatList(rows, { titles: TITLES, layout: LAYOUT, format, isQuiet });
}

/** What is or was wrong with it; empty: nothing that is known. */
function problemOf({ status, eviction = '' }: Task): string {
  return status.error || eviction || (status.message.startsWith(FORMER_LIMITS) ? status.message : '');
}

/** Names of tasks and nodes, or their ids. */
export class TaskNames {
  readonly #serviceNames: ReadonlyMap<string, string>;
  readonly #nodeNames: ReadonlyMap<string, string>;
  readonly #showsIds: boolean;

  constructor({ services, nodes }: Pick<TaskList, 'services' | 'nodes'>, showsIds: boolean) {
    this.#serviceNames = new Map(services.map(({ id, spec }) => [id, spec.name]));
    this.#nodeNames = new Map(nodes.map(({ id, description }) => [id, description.hostname]));
    this.#showsIds = showsIds;
  }

  ofService(serviceId: string): string {
    return this.#showsIds ? serviceId : (this.#serviceNames.get(serviceId) ?? serviceId);
  }

  ofTask(task: Task): string {
    return taskName(this.ofService(task.serviceId), task);
  }

  ofNode(nodeId: string): string {
    return this.#showsIds ? nodeId : (this.#nodeNames.get(nodeId) ?? nodeId);
  }

  readonly compare = (a: Task, b: Task): number =>
    compareNames(this.ofService(a.serviceId), this.ofService(b.serviceId)) ||
    a.slot - b.slot ||
    (a.slot === 0 ? compareNames(a.nodeId, b.nodeId) : 0) ||
    b.meta.createdAtMs - a.meta.createdAtMs ||
    b.meta.version - a.meta.version;
}

function matchesTask(task: Task, filters: Filters, names: TaskNames, specs: SpecsByRevision): boolean {
  const name = names.ofTask(task);
  return (
    matchesFilter(filters, 'id', (value) => task.id.startsWith(value)) &&
    matchesFilter(filters, 'name', (value) => `${name}.${task.id}`.startsWith(value)) &&
    matchesFilter(
      filters,
      'service',
      (value) => task.serviceId === value || names.ofService(task.serviceId) === value,
    ) &&
    matchesFilter(filters, 'node', (value) => task.nodeId === value || names.ofNode(task.nodeId) === value) &&
    matchesFilter(filters, 'desired-state', (value) => task.desiredState === value.toLowerCase()) &&
    matchesLabels(filters, 'label', specOf(task, specs)?.task.container.labels ?? {})
  );
}
