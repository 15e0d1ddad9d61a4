// `node rm`: takes nodes out of the cluster for good; their certificates are refused from then on.

import { defineCommand } from '../../command.ts';
import { switchFlag } from '../../flags/flag.ts';
import { forEachName, reportFailures } from '../../names.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NODE [NODE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { force: switchFlag('Force remove a node from the swarm', { shorthand: 'f' }) },
  completes: 'node',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    const failures = await forEachName(args, async (name) => {
      await control.removeNode({ node: name, force: flags.force ?? false });
      await io.out(`${name}\n`);
    });
    return reportFailures(failures, io);
  },
});
