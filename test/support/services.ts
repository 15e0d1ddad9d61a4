// Services of real containers for tests, built on the control service.

import { defaultRestartPolicy, newServiceSpec } from '../../core/defaults.ts';
import {
  type ContainerSpec,
  emptyEndpointSpec,
  type PortConfig,
  type Service,
  type ServiceSpec,
  type Task,
} from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';
import { eventually } from './eventually.ts';
import type { RealNode } from './real-node.ts';

export interface RealServiceOptions {
  readonly image: string;
  readonly replicas?: number;
  /** Run by the shell. */
  readonly script?: string;
  readonly container?: Partial<ContainerSpec>;
  readonly ports?: readonly PortConfig[];
  readonly change?: (spec: ServiceSpec) => ServiceSpec;
}

/** Ends on TERM at once, and does nothing before. */
export const IDLE = 'trap "exit 0" TERM; while :; do sleep 1000 & wait $!; done';

export function serviceSpec(name: string, options: RealServiceOptions): ServiceSpec {
  const {
    image,
    replicas = 1,
    script = IDLE,
    container = {},
    ports = [],
    change = (spec: ServiceSpec) => spec,
  } = options;
  const spec = newServiceSpec(name, { image, command: ['sh', '-c', script], ...container });
  return change({
    ...spec,
    task: { ...spec.task, restart: { ...defaultRestartPolicy, delayMs: 100 } },
    mode: { replicated: { replicas } },
    endpoint: { ...emptyEndpointSpec, ports },
  });
}

export async function createService(
  node: RealNode,
  name: string,
  options: RealServiceOptions,
): Promise<Service> {
  return (await node.control.createService({ spec: serviceSpec(name, options) })).service;
}

export async function tasksOf(node: RealNode, serviceId: string): Promise<Task[]> {
  const tasks: Task[] = [];
  for await (const page of node.control.listTasks({ serviceIds: [serviceId], nodeIds: [] }))
    tasks.push(...page.tasks);
  return tasks;
}

export async function untilRunning(node: RealNode, serviceId: string, count: number): Promise<Task[]> {
  return eventually(async () => {
    const tasks = await tasksOf(node, serviceId);
    const running = tasks.filter((task) => isWanted(task) && task.status.state === 'running');
    if (running.length === count) return running;
    throw new Error(
      `${running.length} of ${count} run; ${tasks.map((t) => `${t.status.state} ${t.status.error}`).join(', ')}`,
    );
  }, 30_000);
}

/** All lines of a service's tasks, by task. */
export async function linesOf(node: RealNode, serviceId: string): Promise<Map<string, string[]>> {
  const lines = new Map<string, string[]>();
  const options = { follow: false, tail: -1, sinceMs: 0, untilMs: 0 };
  const request = { serviceIds: [serviceId], taskIds: [], options, resumed: false, after: {} };
  for await (const part of node.control.serviceLogs(request))
    for (const { taskId, data } of part.lines)
      lines.set(taskId, [...(lines.get(taskId) ?? []), Buffer.from(data).toString().trimEnd()]);
  return lines;
}
