// `node ps`: the tasks of nodes, of this one when none is named.

import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag, noResolveFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { findNode, forEachName, reportFailures } from '../../names.ts';
import { parseFilters } from '../../output/filter.ts';
import { formatTasks, readTasks } from '../../tasks/task-list.ts';
import { ownNodeId } from './ls.ts';

export const command = defineCommand({
  usage: '[OPTIONS] [NODE...]',
  args: { min: 0, max: Number.POSITIVE_INFINITY },
  flags: {
    filter: filterFlag,
    format: formatFlag,
    'no-resolve': noResolveFlag,
    'no-trunc': noTruncFlag,
    quiet: quietFlag,
  },
  completes: 'node',
  async run({ flags, args, io, connection }) {
    const filters = parseFilters(flags.filter, ['id', 'name', 'label', 'desired-state', 'service']);
    const control = await connection.control();
    const [{ nodes }, { services }] = await Promise.all([control.listNodes({}), control.listServices({})]);
    const selfId = args.length === 0 || args.includes('self') ? await ownNodeId(connection) : '';
    const nodeIds: string[] = [];
    const failures = await forEachName(args.length === 0 ? ['self'] : args, async (name) => {
      nodeIds.push(findNode(nodes, name === 'self' ? selfId : name).id);
    });
    const { tasks, specs } =
      nodeIds.length === 0 ? { tasks: [], specs: new Map() } : await readTasks(control, { nodeIds });
    const list = { tasks, specs, nodes, services: services.map(({ service }) => service), nowMs: io.nowMs() };
    await io.out(
      formatTasks(list, filters, {
        format: flags.format,
        isQuiet: flags.quiet,
        isFull: flags['no-trunc'] ?? false,
        showsIds: flags['no-resolve'] ?? false,
      }),
    );
    return reportFailures(failures, io);
  },
});
