// `service scale SERVICE=REPLICAS…`, also of jobs that have a number of completions.

import type { ServiceSpec } from '../../../core/generated/objects.ts';
import { validateServiceSpec } from '../../../core/validate-spec.ts';
import { defineCommand } from '../../command.ts';
import { detachFlag } from '../../flags/common-flags.ts';
import { scaledSpec } from '../../flags/service-mode.ts';
import { parseCount } from '../../flags/units.ts';
import { splitKeyValue } from '../../flags/words.ts';
import { UsageError } from '../../usage-error.ts';
import { changeServices } from './change-services.ts';

export const command = defineCommand({
  usage: 'SERVICE=REPLICAS [SERVICE=REPLICAS...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { detach: detachFlag },
  completes: 'service',
  async run({ flags, args, io, connection }) {
    const wanted = new Map(args.map(parseScale));
    return changeServices(await connection.control(), io, {
      names: [...wanted.keys()],
      change: (spec, name) => scaled(spec, wanted.get(name) as number),
      describe: (name) => `${name} scaled to ${wanted.get(name)}`,
      isDetached: flags.detach ?? false,
    });
  },
});

function parseScale(text: string): [string, number] {
  const { key, value } = splitKeyValue(text);
  if (value === undefined || key === '')
    throw new UsageError(`invalid scale specifier "${text}": use SERVICE=REPLICAS`);
  try {
    return [key, parseCount(value)];
  } catch (error) {
    throw new UsageError(`invalid replicas value "${value}" for service ${key}: ${(error as Error).message}`);
  }
}

function scaled(before: ServiceSpec, replicas: number): ServiceSpec {
  const spec = scaledSpec(before, replicas);
  validateServiceSpec(spec);
  return spec;
}
