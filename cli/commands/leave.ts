// `tsswarm leave`: takes this machine out of its cluster.

import { defineCommand } from '../command.ts';
import { switchFlag } from '../flags/flag.ts';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    force: switchFlag('Force this node to leave the swarm, ignoring warnings', { shorthand: 'f' }),
  },
  async run({ flags, io, connection }) {
    const node = await connection.node();
    await node.leave({ force: flags.force ?? false });
    await io.out('Node left the swarm.\n');
  },
});
