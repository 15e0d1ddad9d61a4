// `events`: what happens to services, tasks, nodes, networks, secrets and configs, from now on. When the manager goes, another is
// asked for what came meanwhile.

import type { ClusterEvent } from '../../proto/generated/control.ts';
import { defineCommand } from '../command.ts';
import { filterFlag, formatFlag } from '../flags/common-flags.ts';
import { formatList } from '../format/list-format.ts';
import { formatTime, toNanos } from '../inspect/time.ts';
import { type Filters, matchesFilter, parseFilters } from '../output/filter.ts';
import { follow } from '../progress/follow.ts';

const FILTERS = ['type', 'event', 'service', 'node'];

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { filter: filterFlag, format: formatFlag },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter ?? [], FILTERS);
    const kinds = filters.get('type') ?? [];
    let after: number | undefined;
    const messages = follow({
      connection,
      io,
      open: (control) => control.watchEvents({ kinds, ...(after !== undefined && { after }) }),
      isEager: true,
    });
    for await (const { index, events } of messages) {
      after = index;
      const shown = events.filter((event) => isWanted(event, filters));
      if (shown.length > 0) await io.out(formatEvents(shown, flags.format));
    }
    return 0;
  },
});

function isWanted({ kind, action, id, attributes }: ClusterEvent, filters: Filters): boolean {
  const isOf = (other: string) => (value: string) =>
    kind === other ? [id, attributes['name']].includes(value) : attributes[other] === value;
  return (
    matchesFilter(filters, 'event', (value) => value === action) &&
    matchesFilter(filters, 'service', isOf('service')) &&
    matchesFilter(filters, 'node', isOf('node'))
  );
}

/** As Docker prints them: "2026-01-02T03:04:05.678Z service create <id> (name=web)". */
export function formatEvents(events: readonly ClusterEvent[], format: string | undefined): string {
  if (format !== undefined && format !== '') {
    const rows = events.map(({ kind, action, id, attributes, timeMs }) => ({
      Type: kind,
      Action: action,
      Actor: { ID: id, Attributes: attributes },
      scope: 'swarm',
      time: Math.floor(timeMs / 1000),
      timeNano: toNanos(timeMs),
    }));
    return formatList(rows, { titles: {}, layout: '', format });
  }
  return events
    .map(({ kind, action, id, attributes, timeMs }) => {
      const pairs = Object.entries(attributes)
        .sort(([one], [other]) => (one < other ? -1 : 1))
        .map(([key, value]) => `${key}=${value}`);
      return `${formatTime(timeMs)} ${kind} ${action} ${id} (${pairs.join(', ')})\n`;
    })
    .join('');
}
