// What makes the mode of a service acceptable, and what else of its spec goes with it. Each refusal is `invalid-argument`
// and names the flag.

import { defaultUpdateConfig } from './defaults.ts';
import { invalidField } from './errors.ts';
import type { ServiceSpec, UpdateConfig } from './generated/objects.ts';
import { isGlobal, isJob, MODE_NAMES, modeName } from './service-mode.ts';
import { requireWhole } from './validate-fields.ts';

const REPLICAS_MAX = 1_000_000;

export function validateMode(spec: ServiceSpec): void {
  const { mode, task } = spec;
  const given = [mode.replicated, mode.global, mode.replicatedJob, mode.globalJob];
  if (given.filter((one) => one !== undefined).length !== 1)
    throw invalidField('mode', `must be one of ${MODE_NAMES.join(', ')}`);
  requireCount('replicas', mode.replicated?.replicas ?? 0);
  requireCount('replicas', mode.replicatedJob?.totalCompletions ?? 0);
  requireCount('max-concurrent', mode.replicatedJob?.maxConcurrent ?? 0);
  if (isGlobal(mode) && task.placement.maxReplicasPerNode > 0)
    throw invalidField('replicas-max-per-node', `can only be used with replicated or replicated-job mode`);
  if (isJob(mode)) validateJob(spec);
}

function requireCount(field: string, count: number): void {
  requireWhole(field, count);
  if (count > REPLICAS_MAX) throw invalidField(field, `${count} is more than ${REPLICAS_MAX}`);
}

function validateJob({ mode, task, update, rollback }: ServiceSpec): void {
  const name = modeName(mode);
  if (task.restart.condition === 'any')
    throw invalidField(
      'restart-condition',
      `"any" is not for mode ${name}: use "on-failure" or "none", since what has completed is not run again`,
    );
  for (const [prefix, config] of [
    ['update', update],
    ['rollback', rollback],
  ] as const)
    if (!isDefault(config))
      throw invalidField(
        `${prefix}-config`,
        `the flags --${prefix}-… are not for mode ${name}: a changed job starts again as a whole`,
      );
}

function isDefault(config: UpdateConfig): boolean {
  return (Object.keys(defaultUpdateConfig) as (keyof UpdateConfig)[]).every(
    (field) => config[field] === defaultUpdateConfig[field],
  );
}
