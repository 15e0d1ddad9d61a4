// `service ls`.

import { isJob, modeName } from '../../../core/service-mode.ts';
import type { ServiceSummary } from '../../../proto/generated/control.ts';
import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag, quietFlag } from '../../flags/common-flags.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { compareNames } from '../../names.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../../output/filter.ts';
import { shortId } from '../../output/human.ts';
import { withoutDigest } from '../../output/image-name.ts';
import { formatPorts, portsOfService } from '../../output/ports.ts';

const FILTERS = ['id', 'label', 'mode', 'name'];
const TITLES = { ID: 'ID', Name: 'NAME', Mode: 'MODE', Replicas: 'REPLICAS', Image: 'IMAGE', Ports: 'PORTS' };
const LAYOUT = '{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { filter: filterFlag, format: formatFlag, quiet: quietFlag },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, FILTERS);
    const { services } = await (await connection.control()).listServices({});
    const rows = services
      .filter((summary) => matchesService(filters, summary))
      .sort((a, b) => compareNames(a.service.spec.name, b.service.spec.name))
      .map((summary) => serviceRow(summary, flags.quiet ?? false));
    await io.out(
      formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format, isQuiet: flags.quiet }),
    );
  },
});

function matchesService(filters: Filters, { service }: ServiceSummary): boolean {
  return (
    matchesFilter(filters, 'id', (value) => service.id.startsWith(value)) &&
    matchesFilter(filters, 'name', (value) => service.spec.name.startsWith(value)) &&
    matchesFilter(filters, 'mode', (value) => value === modeName(service.spec.mode)) &&
    matchesLabels(filters, 'label', service.spec.labels)
  );
}

/** "2/3 (max 1 per node)"; of a job "1/2 (3/10 completed)". */
function replicasOf({ service, runningTasks, desiredTasks, ...job }: ServiceSummary): string {
  const { mode, task } = service.spec;
  const most = task.placement.maxReplicasPerNode;
  const completed = `${job.completedTasks}/${job.wantedCompletions} completed`;
  const more = [...(isJob(mode) ? [completed] : []), ...(most > 0 ? [`max ${most} per node`] : [])];
  return `${runningTasks}/${desiredTasks}${more.map((text) => ` (${text})`).join('')}`;
}

function serviceRow(summary: ServiceSummary, isFull: boolean): Row {
  const { service } = summary;
  const { spec } = service;
  const published = portsOfService(service).filter((port) => port.publishMode === 'ingress');
  return {
    ID: isFull ? service.id : shortId(service.id),
    Name: spec.name,
    // Docker's spelling.
    Mode: modeName(spec.mode).replace('-', ' '),
    Replicas: replicasOf(summary),
    Image: withoutDigest(spec.task.container.image),
    Ports: formatPorts(published).join(', '),
  };
}
