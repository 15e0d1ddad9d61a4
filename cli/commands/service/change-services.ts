// Changes the specs of several services, and waits until they are carried out: what `scale`, `stop`, `start` and `restart` share.

import type { ServiceSpec } from '../../../core/generated/objects.ts';
import { type Command, defineCommand } from '../../command.ts';
import type { Control } from '../../connection.ts';
import { detachFlag } from '../../flags/common-flags.ts';
import type { Io } from '../../io.ts';
import { forEachName, reportFailures } from '../../names.ts';
import { converge } from '../../progress/converge.ts';

export interface ServicesChange {
  readonly names: readonly string[];
  readonly change: (spec: ServiceSpec, name: string) => ServiceSpec;
  /** Told for each that was changed. */
  readonly describe: (name: string) => string;
  readonly isDetached: boolean;
}

/** Goes on after failures. Returns the exit status. */
export async function changeServices(
  control: Control,
  io: Io,
  { names, change, describe, isDetached }: ServicesChange,
): Promise<number> {
  const changed: string[] = [];
  const failures = await forEachName(names, async (name) => {
    const { service } = await control.getService({ service: name });
    const { id, specVersion, spec } = service;
    await control.updateService({
      serviceId: id,
      version: specVersion,
      spec: change(spec, name),
      rollback: false,
    });
    changed.push(id);
    await io.out(`${describe(name)}\n`);
  });
  let status = reportFailures(failures, io);
  if (!isDetached)
    for (const serviceId of changed) status = Math.max(status, await converge({ control, serviceId, io }));
  return status;
}

/** A command for services that all get the same change. */
export function changeCommand(change: (spec: ServiceSpec) => ServiceSpec): Command {
  return defineCommand({
    usage: '[OPTIONS] SERVICE [SERVICE...]',
    args: { min: 1, max: Number.POSITIVE_INFINITY },
    flags: { detach: detachFlag },
    completes: 'service',
    async run({ flags, args, io, connection }) {
      const isDetached = flags.detach ?? false;
      return changeServices(await connection.control(), io, {
        names: args,
        change,
        describe: (name) => name,
        isDetached,
      });
    },
  });
}
