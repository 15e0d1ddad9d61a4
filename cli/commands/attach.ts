// `attach`: what a task writes, from now on, and its standard input where it keeps one. At its terminal the detach keys leave, else
// ^C does; the task goes on unless --sig-proxy is given.

import { defineCommand } from '../command.ts';
import { switchFlag, valueFlag } from '../flags/flag.ts';
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from '../reach/detach-keys.ts';
import { exitCodeOf } from '../reach/exit-code.ts';
import { sizeOf, talk } from '../reach/talk.ts';

export const command = defineCommand({
  usage: '[OPTIONS] TASK|SERVICE.SLOT',
  args: { min: 1, max: 1 },
  flags: {
    'detach-keys': valueFlag(
      'string',
      parseDetachKeys,
      'Override the key sequence for detaching from a container',
      { defaultText: DEFAULT_DETACH_KEYS },
    ),
    'no-stdin': switchFlag('Do not attach STDIN'),
    'sig-proxy': switchFlag('Proxy all received signals to the process'),
  },
  completes: 'task',
  async run({ flags, args: [task = ''], io, connection }) {
    const options = {
      io,
      stdin: !flags['no-stdin'],
      tty: true,
      sendsSignals: flags['sig-proxy'] ?? false,
      detachKeys: flags['detach-keys'] ?? parseDetachKeys(DEFAULT_DETACH_KEYS),
      comesBack: true,
    };
    const attach = io.keyboard === undefined ? {} : { size: sizeOf(io) };
    return exitCodeOf(await talk(await connection.control(), { task, attach }, options), io);
  },
});
