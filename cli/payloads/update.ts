// `secret update` and `config update`: a new version, and labels.

import { type PayloadKind, validatePayloadData } from '../../core/validate-payload.ts';
import { defineCommand } from '../command.ts';
import { listFlag, valuesFlag } from '../flags/flag.ts';
import { mergeLabels } from '../flags/labels.ts';
import { parseLabel } from '../flags/words.ts';
import { UsageError } from '../usage-error.ts';
import { payloadCalls } from './calls.ts';
import { readData } from './read-data.ts';

export function updateCommand(kind: PayloadKind) {
  return defineCommand({
    usage: `[OPTIONS] ${kind.toUpperCase()} [FILE|-]`,
    args: { min: 1, max: 2 },
    flags: {
      'label-add': valuesFlag('list', parseLabel, `Add or update a label of the ${kind}`),
      'label-rm': listFlag('Remove a label by its key'),
    },
    completes: kind,
    async run({ flags, given, args: [name = '', file], io, connection }) {
      if (given.size === 0 && file === undefined)
        throw new UsageError('nothing to update: give a file, - for standard input, or a flag');
      const calls = payloadCalls(await connection.control(), kind);
      const { source } = await calls.get(name);
      const labels = mergeLabels(source.spec.labels, flags['label-rm'], flags['label-add']);
      const spec = { ...source.spec, labels };
      const data = file === undefined ? undefined : await readData(file, io);
      if (data !== undefined) validatePayloadData(kind, spec, data);
      await calls.update({ id: source.id, version: source.meta.version, spec, ...(data && { data }) });
      await io.out(`${name}\n`);
    },
  });
}
