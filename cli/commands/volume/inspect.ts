// `volume inspect`.

import { SwarmError } from '../../../core/errors.ts';
import type { Volume } from '../../../proto/generated/node.ts';
import { defineCommand } from '../../command.ts';
import { inspectFlags } from '../../flags/common-flags.ts';
import { inspectObjects } from '../../inspect/inspect-objects.ts';
import { formatTime } from '../../inspect/time.ts';

export const command = defineCommand({
  usage: '[OPTIONS] VOLUME [VOLUME...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { format: inspectFlags.format },
  completes: 'volume',
  async run({ flags, args, io, connection }) {
    const { volumes } = await (await connection.node()).listVolumes({});
    return inspectObjects<Volume>({
      names: args,
      find: async (name) => {
        const found = volumes.find((volume) => volume.name === name);
        if (found === undefined) throw new SwarmError('not-found', `get ${name}: no such volume`);
        return found;
      },
      toShape: toDockerVolume,
      toText: () => '',
      flags: { format: flags.format, pretty: false },
      io,
    });
  },
});

function toDockerVolume({ name, labels, options, createdAtMs, mountpoint, usedBy }: Volume): object {
  const orNull = (map: Readonly<Record<string, string>>) => (Object.keys(map).length > 0 ? map : null);
  return {
    CreatedAt: formatTime(createdAtMs),
    Driver: 'local',
    Labels: orNull(labels),
    Mountpoint: mountpoint,
    Name: name,
    Options: orNull(options),
    Scope: 'local',
    UsedBy: usedBy,
  };
}
