// `tsswarm unlock`: gives a locked manager its key, which is never an argument: those show in lists of processes.

import { messageOf, SwarmError } from '../../core/errors.ts';
import { parseUnlockKey } from '../../core/unlock-key.ts';
import { defineCommand } from '../command.ts';
import { readLine } from '../input-line.ts';
import type { Io } from '../io.ts';

export const command = defineCommand({
  usage: '',
  args: { min: 0, max: 0 },
  flags: {},
  async run({ io, connection }) {
    const node = await connection.node();
    const { state } = await node.info({});
    if (state === 'inactive') throw new SwarmError('failed-precondition', 'this node is not part of a swarm');
    if (state !== 'locked') throw new SwarmError('failed-precondition', 'swarm is not locked');
    const key = (await readKey(io)).trim();
    requireKey(key);
    await node.unlock({ key });
  },
});

function requireKey(key: string): void {
  try {
    parseUnlockKey(key);
  } catch (error) {
    throw new SwarmError('invalid-argument', `unlock key: ${messageOf(error)}`, {
      hint: 'Give the whole key; "tsswarm unlock-key" on a manager that is not locked prints it.',
    });
  }
}

/** From the keyboard, unseen, or the first line of what is piped in. */
async function readKey(io: Io): Promise<string> {
  const typed = await io.readSecret('Enter unlock key: ');
  return typed ?? readLine(io);
}
