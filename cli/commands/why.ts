// `tsswarm why`: the causal chain of what does not run or get on, each link with its way out.

import type { ExplainResponse } from '../../proto/generated/control.ts';
import { defineCommand } from '../command.ts';
import { UsageError } from '../usage-error.ts';

const KINDS = ['service', 'task', 'node', 'update'];

export const command = defineCommand({
  usage: '[service|task|node|update] NAME',
  args: { min: 1, max: 2 },
  flags: {},
  completes: 'service',
  async run({ args, io, connection }) {
    const [kind = '', target = ''] = args.length === 1 ? ['', args[0]] : args;
    if (args.length > 1 && !KINDS.includes(kind))
      throw new UsageError(`"${kind}" must be ${KINDS.join(', ')}, or left out`);
    const explanation = await (await connection.control()).explain({ target, kind });
    await io.out(formatExplanation(explanation, io.isUtf8));
    return explanation.ok ? 0 : 1;
  },
});

export function formatExplanation({ steps }: ExplainResponse, isUtf8: boolean): string {
  const signs = isUtf8 ? { ok: '✔', failed: '✘', remedy: '→' } : { ok: '[ok]', failed: '[!!]', remedy: '->' };
  return steps
    .map(({ ok, subject, text, remedy, depth }) => {
      const indent = '  '.repeat(depth);
      const line = `${indent}${ok ? signs.ok : signs.failed} ${subject}: ${text}\n`;
      return remedy === '' ? line : `${line}${indent}    ${signs.remedy} ${remedy}\n`;
    })
    .join('');
}
