// `tsswarm net audit`: what nodes should have in the kernel for their networks, compared with what they have.

import { defineCommand } from '../../command.ts';
import { switchFlag } from '../../flags/flag.ts';
import { formatExplanation } from '../why.ts';

export const command = defineCommand({
  usage: '[OPTIONS] [NODE]',
  args: { min: 0, max: 1 },
  flags: { repair: switchFlag('Mend what is different') },
  completes: 'node',
  async run({ flags, args: [node = ''], io, connection }) {
    const control = await connection.control();
    const findings = await control.auditNetworks({ node, repair: flags.repair ?? false });
    await io.out(formatExplanation(findings, io.isUtf8));
    return findings.ok ? 0 : 1;
  },
});
