// `tsswarm doctor`: what of this machine stands in the way of a cluster, and what will hurt.

import type { Finding } from '../../proto/generated/node.ts';
import { defineCommand } from '../command.ts';
import { textFlag } from '../flags/flag.ts';
import { managerAddress } from '../flags/node-flags.ts';
import { formatList } from '../format/list-format.ts';
import { formatFindings } from '../output/findings.ts';

const TITLES = { Severity: 'SEVERITY', Subject: 'SUBJECT', Text: 'TEXT', Remedy: 'REMEDY' };
const LAYOUT = '{{.Severity}}\t{{.Subject}}\t{{.Text}}\t{{.Remedy}}';

export const command = defineCommand({
  usage: '[OPTIONS] [HOST:PORT...]',
  args: { min: 0, max: Number.POSITIVE_INFINITY },
  flags: { format: textFlag('Format output: "table", "table TEMPLATE", "json", or a Go TEMPLATE') },
  async run({ flags, args, io, connection }) {
    const managers = args.map(managerAddress);
    const { findings } = await (await connection.node()).examine({ managers });
    await io.out(
      flags.format === undefined
        ? formatFindings(findings, io.isUtf8)
        : formatList(findings.map(findingRow), { titles: TITLES, layout: LAYOUT, format: flags.format }),
    );
    return findings.some(({ severity }) => severity === 'fatal') ? 1 : 0;
  },
});

const findingRow = ({ severity, subject, text, remedy }: Finding) => ({
  Severity: severity,
  Subject: subject,
  Text: text,
  Remedy: remedy,
});
