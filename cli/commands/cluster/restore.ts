// `cluster restore`: makes this machine the first node of the cluster in a backup file.

import { defineCommand } from '../../command.ts';
import { textFlag } from '../../flags/flag.ts';
import { unlockAdvice } from '../../output/cluster-advice.ts';
import { openSource, readChunks } from '../../output/source-file.ts';

export const command = defineCommand({
  usage: '[OPTIONS] FILE|-',
  args: { min: 1, max: 1 },
  flags: {
    'advertise-addr': textFlag('Advertised address (format: <ip|interface>)', { defaultText: 'chosen' }),
    'unlock-key': textFlag('Unlock key that the cluster had when the backup was made'),
  },
  completes: 'file',
  async run({ flags, args: [file = ''], io, connection }) {
    const source = openSource(file, io, 'FILE');
    const call = (await connection.node()).restore();
    try {
      await call.send({
        advertiseAddress: flags['advertise-addr'] ?? '',
        unlockKey: flags['unlock-key'] ?? '',
        data: new Uint8Array(),
      });
      for await (const data of readChunks(source))
        await call.send({ advertiseAddress: '', unlockKey: '', data });
    } finally {
      call.end();
    }
    const { nodeId, unlockKey } = await call.response;
    await io.out(`Cluster restored: current node (${nodeId}) is now its manager.\n`);
    if (unlockKey !== '') await io.out(unlockAdvice(unlockKey));
  },
});
