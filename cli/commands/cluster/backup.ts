// `cluster backup`: everything the cluster knows, in one file, while it goes on.

import { existsSync } from 'node:fs';
import { invalidField } from '../../../core/errors.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag } from '../../flags/flag.ts';
import { writeWhole } from '../../output/whole-file.ts';

// It holds the specs of all services: for the operator's eyes only.
const MODE = 0o600;

export const command = defineCommand({
  usage: '[OPTIONS] FILE|-',
  args: { min: 1, max: 1 },
  flags: { force: switchFlag('Replace a file that is there', { shorthand: 'f' }) },
  completes: 'file',
  async run({ flags, args: [file = ''], io, connection }) {
    if (file !== '-' && existsSync(file) && !flags.force)
      throw invalidField('FILE', `${file} is there already: name another, or use --force to replace it`);
    const messages = (await connection.control()).backup({});
    if (file === '-') for await (const { data } of messages) await io.out(data);
    else {
      await writeWhole(file, messages, { field: 'FILE', mode: MODE });
      await io.out(`Backup written to ${file}\n`);
    }
  },
});
