// A process with one planted bug: lives through seeds until one of them notices it, and tells what did.

import { messageOf } from '../../core/errors.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { plantMemberMutant } from './member-mutants.ts';

const [name = '', seeds = '', durationMs = ''] = process.argv.slice(2);
plantMemberMutant(name);
const { MemberWorld } = await import('./member-world.ts');
setLogLevel('silent');
let noticed: string | undefined;
let seed = 0;
while (noticed === undefined && seed < Number(seeds)) {
  try {
    await new MemberWorld(++seed).run(Number(durationMs));
  } catch (error) {
    noticed = messageOf(error);
  }
}
process.stdout.write(`${JSON.stringify({ name, seed, noticed })}\n`);
