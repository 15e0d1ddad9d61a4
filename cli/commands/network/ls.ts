// `network ls`.

import type { NetworkSummary } from '../../../proto/generated/control.ts';
import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { parseBoolean } from '../../flags/units.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { driverName } from '../../inspect/network-shape.ts';
import { formatTime } from '../../inspect/time.ts';
import { compareNames } from '../../names.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../../output/filter.ts';
import { shortId } from '../../output/human.ts';
import { UsageError } from '../../usage-error.ts';

const FILTERS = ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type'];
const TITLES = {
  ID: 'NETWORK ID',
  Name: 'NAME',
  Driver: 'DRIVER',
  Scope: 'SCOPE',
  IPv4: 'IPV4',
  IPv6: 'IPV6',
  Internal: 'INTERNAL',
  Labels: 'LABELS',
  CreatedAt: 'CREATED AT',
};
const LAYOUT = '{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { filter: filterFlag, format: formatFlag, 'no-trunc': noTruncFlag, quiet: quietFlag },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, FILTERS);
    const dangling = (filters.get('dangling') ?? []).map(parseDangling);
    const { networks } = await (await connection.control()).listNetworks({});
    const rows = networks
      .filter((summary) => matchesNetwork(filters, summary))
      .filter(({ use }) => dangling.every((isWanted) => isWanted === !use.inUse))
      .sort((a, b) => compareNames(a.network.spec.name, b.network.spec.name))
      .map((summary) => networkRow(summary, flags['no-trunc'] ?? false));
    await io.out(
      formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format, isQuiet: flags.quiet }),
    );
  },
});

function parseDangling(text: string): boolean {
  try {
    return parseBoolean(text);
  } catch {
    throw new UsageError(`--filter: dangling "${text}" must be true or false`);
  }
}

function matchesNetwork(filters: Filters, { network: { id, spec } }: NetworkSummary): boolean {
  return (
    matchesFilter(filters, 'id', (value) => id.startsWith(value)) &&
    matchesFilter(filters, 'name', (value) => spec.name.includes(value)) &&
    matchesFilter(filters, 'driver', (value) => driverName(spec) === value) &&
    matchesFilter(filters, 'scope', (value) => value === 'swarm') &&
    // What each node has for itself is not among them.
    matchesFilter(filters, 'type', (value) => value === 'custom') &&
    matchesLabels(filters, 'label', spec.labels)
  );
}

function networkRow({ network: { id, spec, meta } }: NetworkSummary, isFull: boolean): Row {
  return {
    ID: isFull ? id : shortId(id),
    Name: spec.name,
    Driver: driverName(spec),
    Scope: 'swarm',
    IPv4: true,
    IPv6: spec.ipv6,
    Internal: spec.internal,
    Labels: Object.entries(spec.labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
    CreatedAt: formatTime(meta.createdAtMs),
  };
}
