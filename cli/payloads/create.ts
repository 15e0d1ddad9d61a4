// `secret create` and `config create`.

import { type PayloadKind, validatePayloadData, validatePayloadSpec } from '../../core/validate-payload.ts';
import { defineCommand } from '../command.ts';
import { unsupportedFlags, valueFlag, valuesFlag } from '../flags/flag.ts';
import { oneOf } from '../flags/units.ts';
import { parseLabel } from '../flags/words.ts';
import { payloadCalls } from './calls.ts';
import { readData } from './read-data.ts';

const DRIVERS = ['golang'] as const;

export function createCommand(kind: PayloadKind) {
  return defineCommand({
    usage: `[OPTIONS] ${kind.toUpperCase()} FILE|-`,
    args: { min: 2, max: 2 },
    flags: {
      label: valuesFlag('list', parseLabel, `Labels of the ${kind}`, { shorthand: 'l' }),
      'template-driver': valueFlag(
        'string',
        oneOf(...DRIVERS),
        'Its content is a template, filled in for each task ("golang")',
        { choices: DRIVERS },
      ),
      ...(kind === 'secret' ? unsupportedFlags(['driver'], { driver: 'd' }) : {}),
    },
    completes: 'file',
    async run({ flags, args: [name = '', file = ''], io, connection }) {
      const spec = {
        name,
        labels: Object.fromEntries(flags.label),
        templateDriver: flags['template-driver'] ?? '',
      };
      validatePayloadSpec(spec);
      const data = await readData(file, io);
      validatePayloadData(kind, spec, data);
      const { id } = await payloadCalls(await connection.control(), kind).create({ spec, data });
      await io.out(`${id}\n`);
    },
  });
}
