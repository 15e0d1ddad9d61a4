// A process with one planted bug: lives through seeds until one of them notices it, and tells what did.

import { messageOf } from '../../core/errors.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { plantMemberMutant } from './member-mutants.ts';
import { plantOrchestrationMutant } from './orchestration-mutants.ts';

const [world = '', name = '', seeds = '', durationMs = ''] = process.argv.slice(2);
// The worlds are loaded after the bug has been planted.
const World = world === 'members' ? await members() : await orchestration();
setLogLevel('silent');
let noticed: string | undefined;
let seed = 0;
while (noticed === undefined && seed < Number(seeds)) {
  try {
    await new World(++seed).run(Number(durationMs));
  } catch (error) {
    noticed = messageOf(error);
  }
}
process.stdout.write(`${JSON.stringify({ name, seed, noticed })}\n`);

async function members() {
  plantMemberMutant(name);
  return (await import('./member-world.ts')).MemberWorld;
}

async function orchestration() {
  plantOrchestrationMutant(name);
  return (await import('./orchestration-world.ts')).OrchestrationWorld;
}
