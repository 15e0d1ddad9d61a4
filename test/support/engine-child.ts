// A process that uses the engine of a test and is killed by it: opens the engine given as JSON in the first argument,
// creates and starts the containers given in the second, runs the command given in the third in each of them over and
// over, says "ready" and stays. With "create-only" in the fourth it says so first, starts none, and ends when all are made;
// with "starting" it says so when all are made, and starts them.

import type { ContainerConfig } from '../../agent/engine/engine.ts';
import { type OpenEngineOptions, openEngine } from '../../agent/engine/open.ts';
import { testLog } from './engine.ts';

const options = JSON.parse(process.argv[2] as string) as OpenEngineOptions;
const configs = JSON.parse(process.argv[3] as string) as ContainerConfig[];
const engine = await openEngine({ ...options, log: testLog });
const isCreateOnly = process.argv[5] === 'create-only';
const isStarting = process.argv[5] === 'starting';
if (isCreateOnly) process.stdout.write('ready\n');
if (isStarting) {
  await Promise.all(configs.map((config) => engine.containers.create(config)));
  process.stdout.write('ready\n');
}
await Promise.all(
  configs.map(async (config) => {
    if (!isStarting) await engine.containers.create(config);
    if (!isCreateOnly) await engine.containers.start(config.id);
  }),
);
const command = JSON.parse(process.argv[4] ?? '[]') as string[];
const repeat = async (id: string) => {
  for (;;) await engine.containers.exec(id, { command, timeoutMs: 3_600_000 });
};
if (command.length > 0) for (const { id } of configs) void repeat(id);
process.stdout.write(isCreateOnly ? 'created\n' : 'ready\n');
setInterval(() => {}, 1000);
