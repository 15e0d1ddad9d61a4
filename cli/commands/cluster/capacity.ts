// `cluster capacity`: what would be if any one node died.

import type { NodeSpare } from '../../../proto/generated/control.ts';
import { defineCommand } from '../../command.ts';
import { formatFlag } from '../../flags/common-flags.ts';
import { formatList } from '../../format/list-format.ts';
import { compareNames } from '../../names.ts';

const TITLES = {
  ID: 'ID',
  Hostname: 'HOSTNAME',
  Tasks: 'TASKS',
  Fits: 'FITS ELSEWHERE',
  Misfits: 'WITHOUT A PLACE',
};
const LAYOUT = '{{.Hostname}}\t{{.Tasks}}\t{{.Fits}}\t{{.Misfits}}';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { format: formatFlag },
  async run({ flags, io, connection }) {
    const { nodes } = await (await connection.control()).getCapacity({});
    const rows = nodes.toSorted((a, b) => compareNames(a.hostname, b.hostname)).map(capacityRow);
    await io.out(formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format }));
    return nodes.every(({ misfits }) => misfits.length === 0) ? 0 : 1;
  },
});

function capacityRow({ nodeId, hostname, tasks, misfits }: NodeSpare) {
  return {
    ID: nodeId,
    Hostname: hostname,
    Tasks: String(tasks),
    Fits: misfits.length === 0 ? 'Yes' : 'No',
    Misfits: misfits
      .map(({ serviceName, tasks: missing, reason }) => `${serviceName} (${missing}): ${reason}`)
      .join('. '),
  };
}
