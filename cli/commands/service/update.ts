// `service update`.

import { isNodeNetwork } from '../../../core/validate-endpoint.ts';
import { validateServiceSpec } from '../../../core/validate-spec.ts';
import { defineCommand } from '../../command.ts';
import type { Control } from '../../connection.ts';
import { readSeccompProfiles } from '../../flags/seccomp-files.ts';
import { updateFlags } from '../../flags/service-flags.ts';
import { changedSpec } from '../../flags/service-spec.ts';
import { pinImage } from '../../image-pin.ts';
import { converge } from '../../progress/converge.ts';
import { sentAuth } from '../../registry/image-auth.ts';
import { UsageError } from '../../usage-error.ts';
import { showPlan } from './show-plan.ts';

const GO_WITH_ROLLBACK = new Set(['rollback', 'detach', 'quiet']);

export const command = defineCommand({
  usage: '[OPTIONS] SERVICE',
  args: { min: 1, max: 1 },
  flags: updateFlags,
  completes: 'service',
  async run({ flags, given, args: [name = ''], io, connection }) {
    if (flags.rollback && [...given].some((flag) => !GO_WITH_ROLLBACK.has(flag)))
      throw new UsageError('other flags may not be combined with --rollback');
    const control = await connection.control();
    const { service } = await control.getService({ service: name });
    const target = { serviceId: service.id, version: service.specVersion };
    if (flags.rollback) await control.updateService({ ...target, rollback: true });
    else {
      const networks = [...flags['network-add'].map(({ networkId }) => networkId), ...flags['network-rm']];
      const asked = changedSpec(service.spec, flags, {
        environment: io.environment,
        workdir: io.workdir,
        seccompProfiles: await readSeccompProfiles(flags['security-opt-add'], io),
        networkIds: await idsOfNetworks(control, networks),
      });
      validateServiceSpec(asked);
      const isPinned = flags.image === undefined || flags['no-resolve-image'];
      const spec = isPinned ? asked : await pinImage(asked, connection, io);
      if (flags['dry-run']) return showPlan({ control, io, asked: { ...target, spec } });
      const image = spec.task.container.image;
      const registryAuth = flags['with-registry-auth'] ? await sentAuth(io, image) : {};
      await control.updateService({ ...target, spec, rollback: false, ...registryAuth });
    }
    await io.out(`${name}\n`);
    if (flags.detach) return 0;
    return converge({
      control,
      serviceId: service.id,
      io,
      isRollback: flags.rollback ?? false,
      isQuiet: flags.quiet ?? false,
    });
  },
});

/** The spec of a service has ids, operators write names. Throws `not-found` for the first that is neither. */
async function idsOfNetworks(control: Control, names: readonly string[]): Promise<Map<string, string>> {
  const ids = new Map<string, string>();
  for (const name of names.filter((name) => !isNodeNetwork(name)))
    ids.set(name, (await control.getNetwork({ network: name, verbose: false })).network.id);
  return ids;
}
