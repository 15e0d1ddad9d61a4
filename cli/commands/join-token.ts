// `tsswarm join-token`: what a machine needs to join, and new tokens in place of those that got about.

import { defineCommand } from '../command.ts';
import { switchFlag } from '../flags/flag.ts';
import { joinAdvice } from '../output/cluster-advice.ts';
import { UsageError } from '../usage-error.ts';

const ROLES = ['worker', 'manager'] as const;

export const command = defineCommand({
  usage: '[OPTIONS] (worker|manager)',
  args: { min: 1, max: 1 },
  flags: {
    quiet: switchFlag('Only display token', { shorthand: 'q' }),
    rotate: switchFlag('Rotate join token'),
  },
  completes: ROLES,
  async run({ flags, args: [word = ''], io, connection }) {
    const role = ROLES.find((candidate) => candidate === word);
    if (role === undefined) throw new UsageError(`unknown role "${word}": use worker or manager`);
    const control = await connection.control();
    if (flags.rotate)
      await control.updateCluster({
        version: 0,
        rotateWorkerToken: role === 'worker',
        rotateManagerToken: role === 'manager',
        rotateUnlockKey: false,
      });
    const tokens = await control.getJoinTokens({});
    if (flags.quiet) await io.out(`${tokens[role]}\n`);
    else {
      if (flags.rotate) await io.out(`Successfully rotated ${role} join token.\n\n`);
      await io.out(joinAdvice(role, tokens));
    }
  },
});
