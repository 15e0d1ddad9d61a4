// `service history`: the specs that are kept of a service, who gave them to it, and what changed from each to the next.

import { defineCommand } from '../../command.ts';
import { formatFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { formatTime } from '../../inspect/time.ts';
import { formatElapsed, truncate } from '../../output/human.ts';

const TITLES = {
  Version: 'VERSION',
  Age: 'AGE',
  CreatedBy: 'BY',
  Changes: 'CHANGES',
  CreatedAt: 'CREATED AT',
};
const LAYOUT = '{{.Version}}\t{{.Age}}\t{{.CreatedBy}}\t{{.Changes}}';
const CHANGES_LENGTH_MAX = 100;

export const command = defineCommand({
  usage: '[OPTIONS] SERVICE',
  args: { min: 1, max: 1 },
  flags: { format: formatFlag, 'no-trunc': noTruncFlag, quiet: quietFlag },
  completes: 'service',
  async run({ flags, args: [name = ''], io, connection }) {
    const { versions } = await (await connection.control()).getServiceHistory({ service: name });
    const rows = versions.map(({ version, createdAtMs, createdBy, changes }): Row => {
      const text = changes.join('; ');
      return {
        ID: String(version),
        Version: version,
        Age: `${formatElapsed(io.nowMs() - createdAtMs)} ago`,
        CreatedBy: createdBy || 'the managers',
        Changes: flags['no-trunc'] ? text : truncate(text, CHANGES_LENGTH_MAX),
        CreatedAt: formatTime(createdAtMs),
      };
    });
    await io.out(
      formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format, isQuiet: flags.quiet }),
    );
  },
});
