// `service scale SERVICE=REPLICAS…`.

import { validateServiceSpec } from '../../../core/validate-spec.ts';
import { defineCommand } from '../../command.ts';
import type { Control } from '../../connection.ts';
import { detachFlag } from '../../flags/common-flags.ts';
import { parseCount } from '../../flags/units.ts';
import { splitKeyValue } from '../../flags/words.ts';
import { forEachName, reportFailures } from '../../names.ts';
import { converge } from '../../progress/converge.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: 'SERVICE=REPLICAS [SERVICE=REPLICAS...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { detach: detachFlag },
  completes: 'service',
  async run({ flags, args, io, connection }) {
    const wanted = new Map(args.map(parseScale));
    const control = await connection.control();
    const scaled: string[] = [];
    const failures = await forEachName([...wanted.keys()], async (name) => {
      const replicas = wanted.get(name) as number;
      scaled.push(await scale(control, name, replicas));
      await io.out(`${name} scaled to ${replicas}\n`);
    });
    let status = reportFailures(failures, io);
    if (!flags.detach)
      for (const serviceId of scaled) status = Math.max(status, await converge({ control, serviceId, io }));
    return status;
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

async function scale(control: Control, name: string, replicas: number): Promise<string> {
  const { service } = await control.getService({ service: name });
  const spec = { ...service.spec, mode: { replicated: { replicas } } };
  validateServiceSpec(spec);
  await control.updateService({ serviceId: service.id, version: service.specVersion, spec, rollback: false });
  return service.id;
}
