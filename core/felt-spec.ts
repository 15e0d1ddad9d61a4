// What of a spec a running task feels: where two specs are the same in this, no task has to be replaced for the other.

import type { EndpointSpec, ResourceRequirements, TaskSpec } from './generated/objects.ts';
import { isIngressPort } from './ingress-port.ts';

/** What of the endpoint a running task feels: the rest is told to the nodes, which need no new task for it. */
export function feltEndpoint({ ports, drainMs }: EndpointSpec): string {
  const own = ports.filter((port) => !isIngressPort(port));
  return JSON.stringify({ own, drainMs, isInMesh: own.length < ports.length });
}

// Many tasks share one spec.
const comparables = new WeakMap<TaskSpec, string>();

/** As text: a task spec without its placement and without what a running task does not feel or can be given. */
export function feltSpec(spec: TaskSpec): string {
  const known = comparables.get(spec);
  if (known !== undefined) return known;
  const { restart: _restart, placement: _placement, resources, ...rest } = spec;
  const text = JSON.stringify([rest, settledResources(resources)]);
  comparables.set(spec, text);
  return text;
}

/** Without what a runtime changes in a container that runs. */
function settledResources({ limits, generic }: ResourceRequirements): object {
  const { cpuNanos: _cpu, memoryBytes: _memory, pids: _pids, cpuShares: _shares, ...rest } = limits;
  return { ...rest, generic };
}
