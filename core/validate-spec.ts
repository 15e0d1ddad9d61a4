// What makes a spec acceptable. Every refusal names the field and says what would be right. The manager calls this
// before anything is stored; whoever builds a spec may call it earlier.

import { parseAffinity } from './affinity.ts';
import { parseConstraint } from './constraint.ts';
import { HEALTH_TIME_MS_MAX } from './defaults.ts';
import { invalidField } from './errors.ts';
import type {
  ContainerSpec,
  HealthCheck,
  NodeSpec,
  Placement,
  ResourceRequirements,
  RestartPolicy,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from './generated/objects.ts';
import { formatGenericRequest, parseGenericRequest } from './generic-resource.ts';
import { parseImageReference } from './image-reference.ts';
import { parseLogDriver } from './log-driver.ts';
import { parseNetworkProbe } from './network-probe.ts';
import { parsePlacementPreference } from './placement-preference.ts';
import { parseSignal } from './signals.ts';
import { expandContainer, sampleFacts } from './task-template.ts';
import { validateEndpoint, validateNetworks } from './validate-endpoint.ts';
import { requireLabels, requireName, requireWhole } from './validate-fields.ts';
import { validateMode } from './validate-mode.ts';
import { validateMounts } from './validate-mounts.ts';
import { validateContainerOptions, validateWeights } from './validate-options.ts';
import { validateFileReferences } from './validate-payload.ts';

const HOSTNAME_PATTERN =
  /^(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$/;
// Swarm's floors: less CPU than this cannot be expressed as a quota, less memory than this starts nothing.
const CPU_NANOS_MIN = 1_000_000;
const MEMORY_BYTES_MIN = 4 * 2 ** 20;
/** A log entry carries a spec twice (service and revision) and is itself bounded. */
export const SPEC_BYTES_MAX = 512 * 1024;

/** Throws `invalid-argument` on the first field that is wrong; `unimplemented` on what this version cannot do. */
export function validateServiceSpec(spec: ServiceSpec): void {
  requireName('name', spec.name);
  requireLabels('label', spec.labels);
  validateMode(spec);
  validateRebalance(spec);
  validateTaskSpec(spec.task, expandContainer(spec.task.container, sampleFacts(spec)));
  validateAffinities(spec.task.placement, spec.name);
  validateUpdateConfig('update', spec.update);
  validateUpdateConfig('rollback', spec.rollback);
  if (spec.rollback.failureAction === 'rollback')
    throw invalidField('rollback-failure-action', 'must be "pause" or "continue"');
  validateNetworks(spec.task.networks, spec.endpoint);
  validateEndpoint(spec.endpoint);
}

/** Refuses a node name or label that could not be addressed later. */
export function validateNodeSpec(spec: NodeSpec): void {
  requireLabels('label', spec.labels);
  requireWhole('drain-rate', spec.drainRate ?? 0);
  requireWhole('drain-deadline', spec.drainDeadlineMs ?? 0);
}

/** `container` is that of the task with its templates filled in. */
function validateTaskSpec(task: TaskSpec, container: ContainerSpec): void {
  validateContainer(container);
  validateContainerOptions(
    container,
    task.networks.some(({ networkId }) => networkId === 'host'),
  );
  validateResources(task.resources);
  validateRestart(task.restart);
  validatePlacement(task.placement);
  if (task.logDriver !== undefined) parseLogDriver(task.logDriver.name, task.logDriver.options);
}

/** Throws `invalid-argument` on the first field that is wrong. Its templates are filled in. */
export function validateContainer(container: ContainerSpec): void {
  if (container.image === '') throw invalidField('image', 'must not be empty');
  parseImageReference(container.image);
  for (const entry of container.env) {
    if (/^(=|$)/.test(entry) || entry.includes('\0'))
      throw invalidField('env', `"${entry}" must be NAME=VALUE`);
  }
  for (const text of [...container.command, ...container.args])
    if (text.includes('\0')) throw invalidField('args', 'must not contain NUL characters');
  if (container.workdir !== '' && !container.workdir.startsWith('/'))
    throw invalidField('workdir', `"${container.workdir}" must be an absolute path`);
  if (!/^[^\s:]*(:[^\s:]+)?$/.test(container.user))
    throw invalidField('user', `"${container.user}" must be USER or USER:GROUP`);
  for (const group of container.groups)
    if (!/^[^\s:]+$/.test(group)) throw invalidField('group', `"${group}" must be a group's name or number`);
  if (container.hostname !== '' && !HOSTNAME_PATTERN.test(container.hostname))
    throw invalidField('hostname', `"${container.hostname}" is not a valid host name`);
  requireLabels('container-label', container.labels);
  if (container.stopSignal !== '') parseSignal(container.stopSignal, 'stop-signal');
  requireWhole('stop-grace-period', container.stopGracePeriodMs ?? 0);
  validateMounts(container.mounts);
  validateFileReferences(container);
  if (container.healthCheck !== undefined) validateHealthCheck(container.healthCheck);
}

function validateHealthCheck({ test, retries, ...times }: HealthCheck): void {
  if (parseNetworkProbe(test) === undefined) validateHealthCommand(test);
  requireWhole('health-retries', retries);
  requireHealthTime('health-interval', times.intervalMs);
  requireHealthTime('health-timeout', times.timeoutMs);
  requireHealthTime('health-start-period', times.startPeriodMs);
  requireHealthTime('health-start-interval', times.startIntervalMs);
}

function validateHealthCommand(test: readonly string[]): void {
  const [kind = '', ...words] = test;
  if (test.length > 0 && !['NONE', 'CMD', 'CMD-SHELL'].includes(kind))
    throw invalidField('health-cmd', `test "${kind}" must be NONE, CMD, CMD-SHELL, HTTP or TCP`);
  if (kind.startsWith('CMD') && (words[0] ?? '') === '')
    throw invalidField('health-cmd', `test ${kind} needs a command`);
  if (!kind.startsWith('CMD') && words.length > 0)
    throw invalidField('health-cmd', `test NONE takes no command`);
  if (test.some((word) => word.includes('\0')))
    throw invalidField('health-cmd', 'must not contain NUL characters');
}

function requireHealthTime(field: string, timeMs: number): void {
  requireWhole(field, timeMs);
  if (timeMs > HEALTH_TIME_MS_MAX) throw invalidField(field, `${timeMs} ms is more than 24 days`);
}

function validateResources({ limits, reservations, generic }: ResourceRequirements): void {
  validateCpu('limit-cpu', limits.cpuNanos);
  validateCpu('reserve-cpu', reservations.cpuNanos);
  validateMemory('limit-memory', limits.memoryBytes);
  validateMemory('reserve-memory', reservations.memoryBytes);
  requireWhole('limit-pids', limits.pids);
  validateWeights(limits);
  if (limits.memoryBytes > 0 && reservations.memoryBytes > limits.memoryBytes)
    throw invalidField('reserve-memory', 'must not be more than limit-memory');
  if (limits.cpuNanos > 0 && reservations.cpuNanos > limits.cpuNanos)
    throw invalidField('reserve-cpu', 'must not be more than limit-cpu');
  for (const request of generic) parseGenericRequest(formatGenericRequest(request));
  const twice = generic.find(({ kind }, at) =>
    generic.some((other, place) => place < at && other.kind === kind),
  );
  if (twice !== undefined) throw invalidField('generic-resource', `${twice.kind} is asked for twice`);
}

function validateCpu(field: string, nanos: number): void {
  requireWhole(field, nanos);
  if (nanos !== 0 && nanos < CPU_NANOS_MIN)
    throw invalidField(field, `${nanos / 1e9} is less than 0.001 CPUs`);
}

function validateMemory(field: string, bytes: number): void {
  requireWhole(field, bytes);
  if (bytes !== 0 && bytes < MEMORY_BYTES_MIN) throw invalidField(field, `${bytes} bytes is less than 4 MiB`);
}

function validateRestart(restart: RestartPolicy): void {
  requireWhole('restart-delay', restart.delayMs);
  requireWhole('restart-max-attempts', restart.maxAttempts);
  requireWhole('restart-window', restart.windowMs);
}

function validatePlacement(placement: Placement): void {
  for (const constraint of placement.constraints) parseConstraint(constraint);
  for (const preference of placement.preferences) parsePlacementPreference(preference);
  requireWhole('replicas-max-per-node', placement.maxReplicasPerNode);
}

function validateRebalance({ mode, task: { placement } }: ServiceSpec): void {
  if (placement.rebalance !== true) return;
  if (mode.replicated === undefined)
    throw invalidField('rebalance', 'is for services of the mode replicated');
  if (placement.strategy !== 'spread')
    throw invalidField('rebalance', 'needs --placement-strategy spread: it makes all nodes have as many');
  if (placement.preferences.length + placement.affinities.length > 0)
    throw invalidField('rebalance', 'cannot be combined with placement preferences or affinities');
}

function validateAffinities({ affinities }: Placement, name: string): void {
  for (const { service, isTogether } of affinities.map(parseAffinity))
    if (isTogether && service === name)
      throw invalidField(
        'placement-affinity',
        `no node could get the first task of ${name}: it asks for others of its own`,
      );
}

function validateUpdateConfig(kind: 'update' | 'rollback', config: UpdateConfig): void {
  requireWhole(`${kind}-parallelism`, config.parallelism);
  requireWhole(`${kind}-delay`, config.delayMs);
  requireWhole(`${kind}-monitor`, config.monitorMs);
  requireWhole(`${kind}-deadline`, config.deadlineMs);
  if (!(config.maxFailureRatio >= 0 && config.maxFailureRatio <= 1))
    throw invalidField(`${kind}-max-failure-ratio`, `${config.maxFailureRatio} must be from 0 to 1`);
}
