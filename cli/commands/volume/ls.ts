// `volume ls`: the volumes of this node.

import type { Volume } from '../../../proto/generated/node.ts';
import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag } from '../../flags/common-flags.ts';
import { switchFlag, unsupportedFlags } from '../../flags/flag.ts';
import { parseBoolean } from '../../flags/units.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { compareNames } from '../../names.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../../output/filter.ts';
import { UsageError } from '../../usage-error.ts';

const FILTERS = ['dangling', 'driver', 'label', 'name'];
const TITLES = {
  Availability: 'AVAILABILITY',
  Driver: 'DRIVER',
  Group: 'GROUP',
  Labels: 'LABELS',
  Links: 'LINKS',
  Mountpoint: 'MOUNTPOINT',
  Name: 'VOLUME NAME',
  Scope: 'SCOPE',
  Size: 'SIZE',
  Status: 'STATUS',
};
const LAYOUT = '{{.Driver}}\t{{.Name}}';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    filter: filterFlag,
    format: formatFlag,
    quiet: switchFlag('Only display volume names', { shorthand: 'q' }),
    ...unsupportedFlags(['cluster']),
  },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, FILTERS);
    const dangling = (filters.get('dangling') ?? []).map(parseDangling);
    const { volumes } = await (await connection.node()).listVolumes({});
    const rows = volumes
      .filter((volume) => matchesVolume(filters, volume))
      .filter(({ usedBy }) => dangling.every((isWanted) => isWanted === (usedBy.length === 0)))
      .sort((a, b) => compareNames(a.name, b.name))
      .map(volumeRow);
    const { format, quiet: isQuiet } = flags;
    const table = { titles: TITLES, layout: LAYOUT, format, isQuiet, quietField: 'Name' };
    await io.out(formatList(rows, table));
  },
});

function parseDangling(text: string): boolean {
  try {
    return parseBoolean(text);
  } catch {
    throw new UsageError(`--filter: dangling "${text}" must be true or false`);
  }
}

function matchesVolume(filters: Filters, { name, labels }: Volume): boolean {
  return (
    matchesFilter(filters, 'name', (value) => name.includes(value)) &&
    matchesFilter(filters, 'driver', (value) => value === 'local') &&
    matchesLabels(filters, 'label', labels)
  );
}

function volumeRow({ name, labels, mountpoint, usedBy }: Volume): Row {
  return {
    Availability: 'N/A',
    Driver: 'local',
    Group: 'N/A',
    Labels: Object.entries(labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
    Links: usedBy.length,
    Mountpoint: mountpoint,
    Name: name,
    Scope: 'local',
    Size: 'N/A',
    Status: 'N/A',
  };
}
