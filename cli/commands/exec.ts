// `exec`: a command in a running task, wherever in the cluster it runs.

import { defineCommand } from '../command.ts';
import { readEnv, readEnvFile, readEnvLines } from '../flags/environment.ts';
import { listFlag, switchFlag, textFlag, valueFlag } from '../flags/flag.ts';
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from '../reach/detach-keys.ts';
import { exitCodeOf } from '../reach/exit-code.ts';
import { sizeOf, talk } from '../reach/talk.ts';
import { UsageError } from '../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] TASK|SERVICE.SLOT COMMAND [ARG...]',
  args: { min: 2, max: Number.POSITIVE_INFINITY },
  isInterspersed: false,
  flags: {
    detach: switchFlag('Detached mode: run command in the background', { shorthand: 'd' }),
    'detach-keys': valueFlag(
      'string',
      parseDetachKeys,
      'Override the key sequence for detaching from a container',
      { defaultText: DEFAULT_DETACH_KEYS },
    ),
    env: listFlag('Set environment variables', { shorthand: 'e' }),
    'env-file': listFlag('Read in a file of environment variables'),
    interactive: switchFlag('Keep STDIN open even if not attached', { shorthand: 'i' }),
    privileged: switchFlag('Give extended privileges to the command'),
    tty: switchFlag('Allocate a pseudo-TTY', { shorthand: 't' }),
    user: textFlag('Username or UID (format: "<name|uid>[:<group|gid>]")', { shorthand: 'u' }),
    workdir: textFlag('Working directory inside the container', { shorthand: 'w' }),
  },
  completes: 'task',
  async run({ flags, args: [task = '', ...words], io, connection }) {
    const detach = flags.detach ?? false;
    const stdin = !detach && (flags.interactive ?? false);
    const tty = flags.tty ?? false;
    if (stdin && tty && io.keyboard === undefined) throw new UsageError('the input device is not a TTY');
    const lines = await readEnvLines(flags['env-file']);
    const exec = {
      command: words,
      env: readEnv([...readEnvFile(lines), ...flags.env], io.environment),
      workdir: flags.workdir ?? '',
      user: flags.user ?? '',
      privileged: flags.privileged ?? false,
      tty,
      stdin,
      detach,
      ...(tty && { size: sizeOf(io) }),
    };
    const ended = await talk(
      await connection.control(),
      { task, exec },
      {
        io,
        stdin,
        tty,
        sendsSignals: !tty || !stdin,
        detachKeys: flags['detach-keys'] ?? parseDetachKeys(DEFAULT_DETACH_KEYS),
      },
    );
    return exitCodeOf(ended, io);
  },
});
