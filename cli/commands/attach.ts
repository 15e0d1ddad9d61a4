// `attach`: what a task writes, from now on. ^C leaves; the task goes on unless --sig-proxy is given.

import { defineCommand } from '../command.ts';
import { switchFlag } from '../flags/flag.ts';
import { exitCodeOf } from '../reach/exit-code.ts';
import { talk } from '../reach/talk.ts';

export const command = defineCommand({
  usage: '[OPTIONS] TASK|SERVICE.SLOT',
  args: { min: 1, max: 1 },
  flags: {
    'no-stdin': switchFlag('Do not attach STDIN (tasks of services have none)'),
    'sig-proxy': switchFlag('Proxy all received signals to the process'),
  },
  completes: 'task',
  async run({ flags, args: [task = ''], io, connection }) {
    const options = {
      io,
      stdin: false,
      tty: false,
      sendsSignals: flags['sig-proxy'] ?? false,
      detachKeys: [],
    };
    return exitCodeOf(await talk(await connection.control(), { task, attach: {} }, options), io);
  },
});
