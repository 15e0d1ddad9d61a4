// `tsswarm completion`: scripts that ask `tsswarm __complete` for candidates.

import { defineCommand } from '../command.ts';
import { completionScripts } from '../completion/scripts.ts';
import { UsageError } from '../usage-error.ts';

export const command = defineCommand({
  usage: 'bash|zsh|fish',
  args: { min: 1, max: 1 },
  flags: {},
  completes: ['bash', 'zsh', 'fish'],
  async run({ args: [shell = ''], io }) {
    const script = Object.hasOwn(completionScripts, shell) ? completionScripts[shell] : undefined;
    if (script === undefined) throw new UsageError(`unknown shell "${shell}": use bash, zsh or fish`);
    await io.out(script);
  },
});
