// What an operator gets who says nothing. The values are Swarm's (features that operators rely on without knowing).

import {
  type ClusterNetwork,
  type ClusterSpec,
  type ContainerSpec,
  emptyContainerSpec,
  emptyEndpointSpec,
  emptyPlacement,
  emptyResourceRequirements,
  type HealthCheck,
  type RestartPolicy,
  type ServiceSpec,
  type UpdateConfig,
} from './generated/objects.ts';

export const DEFAULT_STOP_GRACE_PERIOD_MS = 10_000;

/** For what neither a service nor its image says of the health check. */
export const defaultHealthCheck: Omit<HealthCheck, 'test'> = Object.freeze({
  intervalMs: 30_000,
  timeoutMs: 30_000,
  retries: 3,
  startPeriodMs: 0,
  startIntervalMs: 5_000,
});

/** Timers take 31 bits of milliseconds: 24 days. */
export const HEALTH_TIME_MS_MAX = 24 * 24 * 3_600_000;

export const defaultRestartPolicy: RestartPolicy = Object.freeze({
  condition: 'any',
  delayMs: 5_000,
  maxAttempts: 0,
  windowMs: 0,
});

/** For `update` and `rollback` alike. */
export const defaultUpdateConfig: UpdateConfig = Object.freeze({
  parallelism: 1,
  delayMs: 0,
  failureAction: 'pause',
  monitorMs: 5_000,
  maxFailureRatio: 0,
  order: 'stop-first',
  // What Kubernetes gives a deployment.
  deadlineMs: 600_000,
});

/** Swarm's: the tasks of a node that is down for this long are given up for good. */
const DEFAULT_ORPHAN_AFTER_MS = 24 * 3_600_000;
/** One zone of four, and never less than one node. */
const DEFAULT_RESCHEDULE_MAX_PERCENT = 25;

/** Specs that are kept of each service, when the cluster does not say. */
export const DEFAULT_SPEC_HISTORY_LIMIT = 10;

export const defaultClusterSpec: ClusterSpec = Object.freeze({
  name: 'default',
  labels: {},
  taskHistoryLimit: 5,
  heartbeatPeriodMs: 5_000,
  snapshotInterval: 10_000,
  certificateLifeMs: 90 * 24 * 3_600_000,
  externalCas: [],
  autolock: false,
  deadManagerAfterMs: 0,
  departedNodeAfterMs: 0,
  acceptExpiredUntilMs: 0,
  maxSnapshots: 0,
  specHistoryLimit: DEFAULT_SPEC_HISTORY_LIMIT,
  nodeSuspectAfterMs: 0,
  orphanAfterMs: DEFAULT_ORPHAN_AFTER_MS,
  rescheduleMaxPercent: DEFAULT_RESCHEDULE_MAX_PERCENT,
});

export const defaultClusterNetwork: ClusterNetwork = Object.freeze({
  addressPools: ['10.0.0.0/8'],
  addressPoolMaskLength: 24,
  dataPathPort: 4789,
});

/** One replica of `container`, everything else as an operator expects it. */
export function newServiceSpec(name: string, container: Partial<ContainerSpec>): ServiceSpec {
  return {
    name,
    labels: {},
    task: {
      container: { ...emptyContainerSpec, stopGracePeriodMs: DEFAULT_STOP_GRACE_PERIOD_MS, ...container },
      resources: emptyResourceRequirements,
      restart: defaultRestartPolicy,
      placement: emptyPlacement,
      forceUpdate: 0,
      networks: [],
    },
    mode: { replicated: { replicas: 1 } },
    update: defaultUpdateConfig,
    rollback: defaultUpdateConfig,
    endpoint: emptyEndpointSpec,
    stopped: false,
  };
}
