// What a container's health check is, from what was asked for and what its image says. Docker's rules. Pure.

import { defaultHealthCheck } from '../../../core/defaults.ts';
import { emptyHealthCheck, type HealthCheck } from '../../../core/generated/objects.ts';
import { parseNetworkProbe } from '../../../core/network-probe.ts';
import type { ContainerHealthCheck } from '../engine.ts';
import type { ImageConfiguration } from '../images/manifest.ts';

/** Field by field: what was asked for, else the image's, else Docker's default. Undefined when there is nothing to check. */
export function effectiveHealthCheck(
  request: HealthCheck | undefined,
  { healthCheck: given = emptyHealthCheck, shell }: Pick<ImageConfiguration, 'healthCheck' | 'shell'>,
): ContainerHealthCheck | undefined {
  const asked = request ?? emptyHealthCheck;
  const test = asked.test.length > 0 ? asked.test : given.test;
  // Of what was asked for only: an image's health check is a command, or nothing that Docker knows.
  const probe = parseNetworkProbe(asked.test);
  const command = commandOf(test, shell);
  if (probe === undefined && command.length === 0) return undefined;
  const pick = (field: keyof typeof defaultHealthCheck) =>
    asked[field] || given[field] || defaultHealthCheck[field];
  return {
    command,
    ...(probe && { probe }),
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
