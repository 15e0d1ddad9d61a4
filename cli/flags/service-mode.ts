// From flags to the mode of a service. Pure.

import { SwarmError } from '../../core/errors.ts';
import type { ServiceMode, ServiceSpec } from '../../core/generated/objects.ts';
import { type ModeName, modeName } from '../../core/service-mode.ts';
import { UsageError } from '../usage-error.ts';

interface ModeFlags {
  readonly replicas: number | undefined;
  readonly 'max-concurrent': number | undefined;
}

/** Throws a UsageError for a flag that is not of this mode. */
export function newMode(name: ModeName, flags: ModeFlags): ServiceMode {
  return changedMode(EMPTY_MODES[name], flags);
}

const EMPTY_MODES: Record<ModeName, ServiceMode> = {
  replicated: { replicated: { replicas: 1 } },
  global: { global: {} },
  'replicated-job': { replicatedJob: { totalCompletions: 1, maxConcurrent: 0 } },
  'global-job': { globalJob: {} },
};

/** The mode with what flags say of it. Throws a UsageError for a flag that is not of this mode. */
export function changedMode(mode: ServiceMode, flags: ModeFlags): ServiceMode {
  const { replicas, 'max-concurrent': maxConcurrent } = flags;
  if (maxConcurrent !== undefined && mode.replicatedJob === undefined)
    throw new UsageError('--max-concurrent can only be used with replicated-job mode');
  if (replicas !== undefined && mode.replicated === undefined && mode.replicatedJob === undefined)
    throw new UsageError('--replicas can only be used with replicated or replicated-job mode');
  if (mode.replicated !== undefined)
    return { replicated: { replicas: replicas ?? mode.replicated.replicas } };
  if (mode.replicatedJob === undefined) return mode;
  return {
    replicatedJob: {
      totalCompletions: replicas ?? mode.replicatedJob.totalCompletions,
      maxConcurrent: maxConcurrent ?? mode.replicatedJob.maxConcurrent,
    },
  };
}

/** Throws `invalid-argument` for a service whose nodes say how many tasks there are. */
export function scaledSpec(spec: ServiceSpec, replicas: number): ServiceSpec {
  const { mode, name } = spec;
  if (mode.replicated === undefined && mode.replicatedJob === undefined)
    throw new SwarmError('invalid-argument', `service ${name} cannot be scaled: it is ${modeName(mode)}`, {
      hint: 'scale can only be used with replicated or replicated-job mode.',
    });
  return { ...spec, mode: changedMode(mode, { replicas, 'max-concurrent': undefined }) };
}
