// `service create`.

import { validateServiceSpec } from '../../../core/validate-spec.ts';
import { defineCommand } from '../../command.ts';
import { readEnvLines } from '../../flags/environment.ts';
import { readSeccompProfiles } from '../../flags/seccomp-files.ts';
import { createFlags } from '../../flags/service-flags.ts';
import { newSpec } from '../../flags/service-spec.ts';
import { pinImage } from '../../image-pin.ts';
import { converge } from '../../progress/converge.ts';
import { sentAuth } from '../../registry/image-auth.ts';
import { randomServiceName } from '../../service-names.ts';
import { showPlan } from './show-plan.ts';

export const command = defineCommand({
  usage: '[OPTIONS] IMAGE [COMMAND] [ARG...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: createFlags,
  isInterspersed: false,
  completes: 'image',
  async run({ flags, args: [image = '', ...args], io, connection }) {
    const asked = newSpec(flags, {
      name: flags.name ?? randomServiceName(Math.random),
      image,
      args,
      envFileLines: await readEnvLines(flags['env-file']),
      environment: io.environment,
      workdir: io.workdir,
      seccompProfiles: await readSeccompProfiles(flags['security-opt'], io),
    });
    validateServiceSpec(asked);
    const spec = flags['no-resolve-image'] ? asked : await pinImage(asked, connection, io);
    const control = await connection.control();
    if (flags['dry-run']) return showPlan({ control, io, asked: { serviceId: '', version: 0, spec } });
    const registryAuth = flags['with-registry-auth'] ? await sentAuth(io, image) : {};
    const { service } = await control.createService({ spec, ...registryAuth });
    await io.out(`${service.id}\n`);
    if (flags.detach) return 0;
    return converge({ control, serviceId: service.id, io, isQuiet: flags.quiet ?? false });
  },
});
