// `secret rm` and `config rm`.

import type { PayloadKind } from '../../core/validate-payload.ts';
import { defineCommand } from '../command.ts';
import { forEachName, reportFailures } from '../names.ts';
import { payloadCalls } from './calls.ts';

export function removeCommand(kind: PayloadKind) {
  const word = kind.toUpperCase();
  return defineCommand({
    usage: `${word} [${word}...]`,
    args: { min: 1, max: Number.POSITIVE_INFINITY },
    flags: {},
    completes: kind,
    async run({ args, io, connection }) {
      const calls = payloadCalls(await connection.control(), kind);
      const failures = await forEachName(args, async (name) => {
        await calls.remove(name);
        await io.out(`${name}\n`);
      });
      return reportFailures(failures, io);
    },
  });
}
