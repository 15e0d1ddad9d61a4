// What a container's health check is, from what was asked for and what its image says. Docker's rules. Pure.

import { defaultHealthCheck } from '../../../core/defaults.ts';
import { emptyHealthCheck, type HealthCheck } from '../../../core/generated/objects.ts';
import type { ContainerHealthCheck } from '../engine.ts';
import type { ImageConfiguration } from '../images/manifest.ts';

/** Field by field: what was asked for, else the image's, else Docker's default. Undefined when there is nothing to run. */
export function effectiveHealthCheck(
  request: HealthCheck | undefined,
  { healthCheck: given = emptyHealthCheck, shell }: Pick<ImageConfiguration, 'healthCheck' | 'shell'>,
): ContainerHealthCheck | undefined {
  const asked = request ?? emptyHealthCheck;
  const command = commandOf(asked.test.length > 0 ? asked.test : given.test, shell);
  if (command.length === 0) return undefined;
  const pick = (field: keyof typeof defaultHealthCheck) =>
    asked[field] || given[field] || defaultHealthCheck[field];
  return {
    command,
    intervalMs: pick('intervalMs'),
    timeoutMs: pick('timeoutMs'),
    retries: pick('retries'),
    startPeriodMs: pick('startPeriodMs'),
    startIntervalMs: pick('startIntervalMs'),
  };
}

/** Empty for "NONE", and for what an image says and Docker does not know. */
function commandOf([kind, ...words]: readonly string[], shell: readonly string[]): readonly string[] {
  if (words.length === 0) return [];
  if (kind === 'CMD') return words;
  return kind === 'CMD-SHELL' ? [...shell, ...words] : [];
}
