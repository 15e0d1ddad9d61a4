// `secret ls` and `config ls`.

import type { PayloadKind } from '../../core/validate-payload.ts';
import { defineCommand } from '../command.ts';
import { filterFlag, formatFlag, quietFlag } from '../flags/common-flags.ts';
import { formatList, type Row } from '../format/list-format.ts';
import { compareNames } from '../names.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../output/filter.ts';
import { formatElapsed } from '../output/human.ts';
import { type PayloadSource, payloadCalls } from './calls.ts';

const FILTERS = ['id', 'label', 'name'];
const TITLES = {
  ID: 'ID',
  Name: 'NAME',
  Driver: 'DRIVER',
  CreatedAt: 'CREATED',
  UpdatedAt: 'UPDATED',
  Labels: 'LABELS',
  Version: 'VERSION',
};
/** Docker's: a secret could have a driver, a config could not. */
const LAYOUTS: Readonly<Record<PayloadKind, string>> = {
  secret: '{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}',
  config: '{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}',
};

export function listCommand(kind: PayloadKind) {
  return defineCommand({
    usage: '[OPTIONS]',
    args: { min: 0, max: 0 },
    flags: { filter: filterFlag, format: formatFlag, quiet: quietFlag },
    async run({ flags, io, connection }) {
      const filters = parseFilters(flags.filter, FILTERS);
      const sources = await payloadCalls(await connection.control(), kind).list();
      const rows = sources
        .filter((source) => matchesSource(filters, source))
        .sort((a, b) => compareNames(a.spec.name, b.spec.name))
        .map((source) => rowOf(source, io.nowMs()));
      const { format, quiet: isQuiet } = flags;
      await io.out(formatList(rows, { titles: TITLES, layout: LAYOUTS[kind], format, isQuiet }));
    },
  });
}

function matchesSource(filters: Filters, { id, spec }: PayloadSource): boolean {
  return (
    matchesFilter(filters, 'id', (value) => id.startsWith(value)) &&
    matchesFilter(filters, 'name', (value) => spec.name.includes(value)) &&
    matchesLabels(filters, 'label', spec.labels)
  );
}

function rowOf({ id, spec, meta, latestVersion }: PayloadSource, nowMs: number): Row {
  return {
    ID: id,
    Name: spec.name,
    Driver: '',
    CreatedAt: `${formatElapsed(nowMs - meta.createdAtMs)} ago`,
    UpdatedAt: `${formatElapsed(nowMs - meta.updatedAtMs)} ago`,
    Labels: Object.entries(spec.labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
    Version: latestVersion,
  };
}
