// `task inspect`.

import { SwarmError } from '../../../core/errors.ts';
import { defineCommand } from '../../command.ts';
import { formatFlag } from '../../flags/common-flags.ts';
import { inspectObjects } from '../../inspect/inspect-objects.ts';
import { toDockerTask } from '../../inspect/task-shape.ts';
import { type FoundTask, findTask } from '../../tasks/find-task.ts';

export const command = defineCommand({
  usage: '[OPTIONS] TASK|SERVICE.SLOT [TASK|SERVICE.SLOT...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: { format: formatFlag },
  completes: 'task',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    return inspectObjects<FoundTask>({
      names: args,
      find: async (name) => {
        const found = await findTask(control, name);
        if (found === undefined) throw new SwarmError('not-found', `no such task: ${name}`);
        return found;
      },
      toShape: toDockerTask,
      toText: () => '',
      flags: { format: flags.format, pretty: false },
      io,
    });
  },
});
