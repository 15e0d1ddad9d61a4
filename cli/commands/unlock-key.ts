// `tsswarm unlock-key`: the key that managers need after a restart.

import { SwarmError } from '../../core/errors.ts';
import { defineCommand } from '../command.ts';
import { switchFlag } from '../flags/flag.ts';
import { unlockAdvice } from '../output/cluster-advice.ts';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    quiet: switchFlag('Only display key', { shorthand: 'q' }),
    rotate: switchFlag('Rotate unlock key'),
  },
  async run({ flags, io, connection }) {
    const control = await connection.control();
    if (flags.rotate)
      await control.updateCluster({
        version: 0,
        rotateWorkerToken: false,
        rotateManagerToken: false,
        rotateUnlockKey: true,
      });
    const { key } = await control.getUnlockKey({});
    if (key === '')
      throw new SwarmError('failed-precondition', 'no unlock key is set: the managers are not locked', {
        hint: 'Lock them with "tsswarm cluster update --autolock=true".',
      });
    if (flags.quiet) await io.out(`${key}\n`);
    else {
      if (flags.rotate) await io.out('Successfully rotated manager unlock key.\n\n');
      await io.out(unlockAdvice(key));
    }
  },
});
