// `tsswarm net trace`: follows a connection hop by hop, and names the one that is broken.

import { defineCommand } from '../../command.ts';
import { UsageError } from '../../usage-error.ts';
import { formatExplanation } from '../why.ts';

const PORT_MAX = 65_535;

export const command = defineCommand({
  usage: 'FROM TO[:PORT]',
  args: { min: 2, max: 2 },
  flags: {},
  completes: 'service',
  async run({ args: [from = '', target = ''], io, connection }) {
    const { to, port } = parseTarget(target);
    const explanation = await (await connection.control()).traceNetwork({ from, to, port });
    await io.out(formatExplanation(explanation, io.isUtf8));
    return explanation.ok ? 0 : 1;
  },
});

function parseTarget(text: string): { to: string; port: number } {
  const [to = '', port] = text.split(':');
  if (port === undefined) return { to, port: 0 };
  const number = Number(port);
  if (!/^\d+$/.test(port) || number < 1 || number > PORT_MAX)
    throw new UsageError(`TO: port "${port}" must be from 1 to ${PORT_MAX}`);
  return { to, port: number };
}
