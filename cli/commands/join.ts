// `tsswarm join`: makes this machine a node of a cluster.

import { hasCode, SwarmError } from '../../core/errors.ts';
import { parseJoinToken } from '../../core/join-token.ts';
import { defineCommand } from '../command.ts';
import { textFlag, valuesFlag } from '../flags/flag.ts';
import { managerAddress, newNodeFlags } from '../flags/node-flags.ts';
import { parseLabel } from '../flags/words.ts';
import { formatFindings } from '../output/findings.ts';
import { UsageError } from '../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] --token TOKEN HOST:PORT [HOST:PORT...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    token: textFlag('Token for entry into the swarm'),
    ...newNodeFlags,
    label: valuesFlag('list', parseLabel, 'Node label (key=value)'),
  },
  async run({ flags, args, io, connection }) {
    const token = requireToken(flags.token);
    const managers = args.map(managerAddress);
    const { role, findings } = await (await connection.node()).join({
      token,
      managers,
      listenAddress: flags['listen-addr'] ?? '',
      advertiseAddress: flags['advertise-addr'] ?? '',
      dataPathAddress: flags['data-path-addr'] ?? '',
      availability: flags.availability ?? 'active',
      labels: Object.fromEntries(flags.label),
    });
    const warnings = findings.filter(({ severity }) => severity !== 'good');
    if (warnings.length > 0) io.err(formatFindings(warnings, io.isUtf8));
    await io.out(`This node joined a swarm as a ${role}.\n`);
  },
});

/** No message has the token in it: messages end up in logs. */
function requireToken(token: string | undefined): string {
  if (token === undefined || token === '')
    throw new UsageError('--token is missing: "tsswarm join-token worker" on a manager prints it');
  try {
    parseJoinToken(token);
  } catch (error) {
    if (!hasCode(error, 'invalid-argument')) throw error;
    throw new SwarmError('invalid-argument', `token: ${error.message}`, {
      ...(error.hint !== undefined && { hint: error.hint }),
    });
  }
  return token;
}
