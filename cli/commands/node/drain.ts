// `node drain`: short for `node update --availability drain`.

import { defineCommand } from '../../command.ts';
import { switchFlag } from '../../flags/flag.ts';
import { drainDeadlineFlag, drainRateFlag, drainSpec } from '../../flags/node-flags.ts';
import { findNode, forEachName, reportFailures } from '../../names.ts';
import { ownNodeId } from './ls.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NODE [NODE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    rate: drainRateFlag,
    deadline: drainDeadlineFlag,
    force: switchFlag('Drain it also when its tasks fit nowhere else', { shorthand: 'f' }),
  },
  completes: 'node',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    const failures = await forEachName(args, async (name) => {
      const { nodes } = await control.listNodes({});
      const node = findNode(nodes, name === 'self' ? await ownNodeId(connection) : name);
      await control.updateNode({
        nodeId: node.id,
        version: node.meta.version,
        spec: {
          ...node.spec,
          availability: 'drain',
          ...drainSpec({ rate: flags.rate, deadlineMs: flags.deadline }),
        },
        address: '',
        force: flags.force ?? false,
      });
      await io.out(`${name}\n`);
    });
    return reportFailures(failures, io);
  },
});
