// `service ps`: the tasks of services, slot by slot, with their history.

import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag, noResolveFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { findService, forEachName, reportFailures } from '../../names.ts';
import { parseFilters } from '../../output/filter.ts';
import { formatTasks, readTasks } from '../../tasks/task-list.ts';

export const command = defineCommand({
  usage: '[OPTIONS] SERVICE [SERVICE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    filter: filterFlag,
    format: formatFlag,
    'no-resolve': noResolveFlag,
    'no-trunc': noTruncFlag,
    quiet: quietFlag,
  },
  completes: 'service',
  async run({ flags, args, io, connection }) {
    const filters = parseFilters(flags.filter, ['id', 'name', 'node', 'desired-state']);
    const control = await connection.control();
    const [{ nodes }, summaries] = await Promise.all([control.listNodes({}), control.listServices({})]);
    const services = summaries.services.map(({ service }) => service);
    const serviceIds: string[] = [];
    const failures = await forEachName(args, async (name) => {
      serviceIds.push(findService(services, name).id);
    });
    if (serviceIds.length > 0) {
      const { tasks, specs } = await readTasks(control, { serviceIds });
      const list = { tasks, specs, nodes, services, nowMs: io.nowMs() };
      await io.out(
        formatTasks(list, filters, {
          format: flags.format,
          isQuiet: flags.quiet,
          isFull: flags['no-trunc'] ?? false,
          showsIds: flags['no-resolve'] ?? false,
        }),
      );
    }
    return reportFailures(failures, io);
  },
});
