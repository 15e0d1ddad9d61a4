// `npm run simulate`: repeats a run of the simulated cluster by its seed, or hunts for failures with fresh seeds.
//
//   --seed 7 --steps 4000 [--trace]     one run, step by step
//   --minutes 30 [--steps 4000]         fresh seeds until the time is over
//   --world members [--minutes 30]      whole nodes that join, leave and change their roles (member-world.ts)
//   --world orchestration [--minutes 30] services, their tasks and the machines that run them (orchestration-world.ts)
//   --world rolling-update --services 1000 --replicas 10 --agents 50     all of them updated at once
//   --mutant 'reads without a quorum'   with a planted bug, for --seed or for the first seed that notices it; of the
//                                       orchestration as well, or all of them: --world orchestration --mutant all

import { execFile } from 'node:child_process';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { describeFailure, hunt } from './hunt.ts';
import { mutantOf, plant } from './mutants.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    steps: { type: 'string', default: '4000' },
    minutes: { type: 'string', default: '1' },
    mutant: { type: 'string' },
    world: { type: 'string', default: 'core' },
    services: { type: 'string', default: '1000' },
    replicas: { type: 'string', default: '10' },
    agents: { type: 'string', default: '50' },
    trace: { type: 'boolean', default: false },
  },
});
// Of faults, in virtual time; healing comes after.
const MEMBERS_DURATION_MS = 60_000;
const ORCHESTRATION_DURATION_MS = 120_000;
const MUTANT_SEEDS = 40;
const steps = Number(values.steps);
const planted = values.mutant === undefined ? '' : ` --mutant '${values.mutant}'`;
const say = (line: string) => process.stdout.write(`${line}\n`);

await simulate();

async function simulate(): Promise<void> {
  const { setLogLevel } = await import('../../rpc/logger.ts');
  if (values.world !== 'core') setLogLevel('silent');
  if (values.world === 'members') {
    const { MemberWorld } = await import('./member-world.ts');
    await huntWorlds((seed) => new MemberWorld(seed), MEMBERS_DURATION_MS);
  } else if (values.world === 'orchestration' && values.mutant !== undefined)
    await killMutants(values.mutant);
  else if (values.world === 'orchestration') {
    const { OrchestrationWorld } = await import('./orchestration-world.ts');
    await huntWorlds((seed) => new OrchestrationWorld(seed), ORCHESTRATION_DURATION_MS);
  } else if (values.world === 'rolling-update') await updateAll();
  else await simulateCore();
}

/** Each in a process of its own, until a seed notices it. */
async function killMutants(wanted: string): Promise<void> {
  const { ORCHESTRATION_MUTANTS } = await import('./orchestration-mutants.ts');
  const child = path.join(import.meta.dirname, 'world-mutant-child.ts');
  for (const { name } of ORCHESTRATION_MUTANTS) {
    if (wanted !== 'all' && wanted !== name) continue;
    const args = [child, 'orchestration', name, `${MUTANT_SEEDS}`, `${ORCHESTRATION_DURATION_MS}`];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const { seed, noticed } = JSON.parse(stdout);
    say(
      `${name}: ${noticed === undefined ? `${seed} seeds have not noticed it` : `seed ${seed}: ${noticed}`}`,
    );
    if (noticed === undefined) process.exitCode = 1;
  }
}

async function updateAll(): Promise<void> {
  const { RollingUpdate } = await import('./rolling-update.ts');
  const [services, replicas, agents] = [values.services, values.replicas, values.agents].map(Number) as [
    number,
    number,
    number,
  ];
  const begin = performance.now();
  const update = new RollingUpdate(Number(values.seed ?? 1), { services, replicas, agents });
  const { lowest, virtualMs, entries } = await update.run();
  const seconds = Math.round((performance.now() - begin) / 1000);
  say(
    `${services} services of ${replicas} tasks updated in ${Math.round(virtualMs / 1000)} simulated seconds (${seconds} real ones, ${entries} entries); the fewest tasks that any had running: ${lowest}`,
  );
}

async function simulateCore(): Promise<void> {
  if (values.mutant !== undefined) plant(mutantOf(values.mutant));
  if (values.seed !== undefined) await repeat(Number(values.seed));
  else if (values.mutant !== undefined) await firstKill();
  else await hunting(Number(values.minutes));
}

interface World {
  run(durationMs: number): Promise<void>;
  describe(): string;
}

async function huntWorlds(newWorld: (seed: number) => World, durationMs: number): Promise<void> {
  const minutes = Number(values.minutes);
  const endMs = performance.now() + minutes * 60_000;
  const single = values.seed === undefined ? undefined : Number(values.seed);
  let [runs, failures] = [0, 0];
  for (let seed = single ?? Math.floor(Math.random() * 2 ** 31); ; seed++) {
    const world = newWorld(seed);
    try {
      await world.run(durationMs);
    } catch (error) {
      failures++;
      say(`--world ${values.world} --seed ${seed}: ${error}\n${world.describe()}`);
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
