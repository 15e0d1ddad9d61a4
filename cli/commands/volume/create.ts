// `volume create`.

import { requireVolumeName, validateVolumeDriver } from '../../../core/validate-mounts.ts';
import { defineCommand } from '../../command.ts';
import { parseSetting } from '../../flags/container-values.ts';
import { textFlag, unsupportedFlags, valuesFlag } from '../../flags/flag.ts';
import { parseLabel } from '../../flags/words.ts';

// Of cluster volumes, which need a plugin.
const UNSUPPORTED = [
  ...['availability', 'group', 'limit-bytes', 'required-bytes', 'scope', 'secret', 'sharing'],
  ...['topology-preferred', 'topology-required', 'type'],
] as const;

export const command = defineCommand({
  usage: '[OPTIONS] [VOLUME]',
  args: { min: 0, max: 1 },
  flags: {
    driver: textFlag('Specify volume driver name', { shorthand: 'd', defaultText: 'local' }),
    label: valuesFlag('list', parseLabel, 'Set metadata for a volume'),
    opt: valuesFlag('map', parseSetting, 'Set driver specific options (type=, device=, o=)', {
      shorthand: 'o',
    }),
    ...unsupportedFlags(UNSUPPORTED),
  },
  async run({ flags, args: [name = ''], io, connection }) {
    const options = Object.fromEntries(flags.opt);
    if (name !== '') requireVolumeName('name', name);
    validateVolumeDriver('', flags.driver ?? 'local', options);
    const labels = Object.fromEntries(flags.label);
    const { volume } = await (await connection.node()).createVolume({ name, labels, options });
    await io.out(`${volume.name}\n`);
  },
});
