// `npm run simulate`: repeats a run of the simulated cluster by its seed, or hunts for failures with fresh seeds.
//
//   --seed 7 --steps 4000 [--trace]     one run, step by step
//   --minutes 30 [--steps 4000]         fresh seeds until the time is over
//   --world members [--minutes 30]      whole nodes that join, leave and change their roles (member-world.ts)
//   --mutant 'reads without a quorum'   with a planted bug, for --seed or for the first seed that notices it

import { parseArgs } from 'node:util';
import { describeFailure, hunt } from './hunt.ts';
import { mutantOf, plant } from './mutants.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    steps: { type: 'string', default: '4000' },
    minutes: { type: 'string', default: '1' },
    mutant: { type: 'string' },
    world: { type: 'string', default: 'core' },
    trace: { type: 'boolean', default: false },
  },
});
// Of faults, in virtual time; healing comes after.
const MEMBERS_DURATION_MS = 60_000;
const steps = Number(values.steps);
const planted = values.mutant === undefined ? '' : ` --mutant '${values.mutant}'`;
const say = (line: string) => process.stdout.write(`${line}\n`);

if (values.world === 'members') await huntMembers(Number(values.minutes));
else await simulateCore();

async function simulateCore(): Promise<void> {
  if (values.mutant !== undefined) plant(mutantOf(values.mutant));
  if (values.seed !== undefined) await repeat(Number(values.seed));
  else if (values.mutant !== undefined) await firstKill();
  else await hunting(Number(values.minutes));
}

async function huntMembers(minutes: number): Promise<void> {
  const { MemberWorld } = await import('./member-world.ts');
  const { setLogLevel } = await import('../../rpc/logger.ts');
  setLogLevel('silent');
  const endMs = performance.now() + minutes * 60_000;
  const single = values.seed === undefined ? undefined : Number(values.seed);
  let [runs, failures] = [0, 0];
  for (let seed = single ?? Math.floor(Math.random() * 2 ** 31); ; seed++) {
    const world = new MemberWorld(seed);
    try {
      await world.run(MEMBERS_DURATION_MS);
    } catch (error) {
      failures++;
      say(`--world members --seed ${seed}: ${error}\n${world.describe()}`);
    }
    runs++;
    if (single !== undefined || performance.now() > endMs) break;
  }
  say(`${runs} runs, ${failures} failures`);
  if (failures > 0) process.exitCode = 1;
}

async function repeat(seed: number): Promise<void> {
  const { runSeed, shortest } = await import('./core-run.ts');
  const begin = performance.now();
  const failure = runSeed(seed, steps, values.trace ? say : undefined);
  if (failure === undefined) {
    const perSecond = steps / ((performance.now() - begin) / 1000);
    say(`seed ${seed}: ${steps} steps, nothing found, ${Math.round(perSecond).toLocaleString('en')} steps/s`);
    return;
  }
  process.exitCode = 1;
  if (values.trace) say(failure.message);
  else say(describeFailure(shortest(failure)) + planted);
}

async function firstKill(): Promise<void> {
  const { runSeed } = await import('./core-run.ts');
  let seed = 1;
  while (runSeed(seed, steps) === undefined) seed++;
  await repeat(seed);
}

async function hunting(minutes: number): Promise<void> {
  const { shortest } = await import('./core-run.ts');
  const first = Math.floor(Math.random() * 2 ** 31);
  say(`seeds from ${first} on, ${steps} steps each, for ${minutes} minutes`);
  const {
    runs,
    steps: total,
    elapsedMs,
    failures,
  } = await hunt({ first, steps, durationMs: minutes * 60_000 });
  for (const failure of failures) say(describeFailure(shortest(failure)));
  const perSecond = Math.round(total / (elapsedMs / 1000)).toLocaleString('en');
  say(`${runs} runs, ${total.toLocaleString('en')} steps, ${perSecond} steps/s, ${failures.length} failures`);
  if (failures.length > 0) process.exitCode = 1;
}
