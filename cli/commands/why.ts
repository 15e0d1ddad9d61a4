// `tsswarm why`: the causal chain of what does not run, each link with its way out.

import type { ExplainResponse } from '../../proto/generated/control.ts';
import { defineCommand } from '../command.ts';

export const command = defineCommand({
  usage: 'SERVICE|TASK',
  args: { min: 1, max: 1 },
  flags: {},
  completes: 'service',
  async run({ args: [target = ''], io, connection }) {
    const explanation = await (await connection.control()).explain({ target });
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
