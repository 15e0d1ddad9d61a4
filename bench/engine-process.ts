// A process with an engine open, so that what the engine and all that it starts use can be counted apart. It answers calls.

import { once } from 'node:events';
import type { ContainerConfig } from '../agent/engine/engine.ts';
import { Limiter } from '../agent/engine/limiter.ts';
import { type OpenEngineOptions, type OwnedEngine, openEngine } from '../agent/engine/open.ts';
import { answerCalls } from '../test/network/answer-calls.ts';
import { aContainer, endEngine, importDemoImage, testLog } from '../test/support/engine.ts';

/** As the daemon has it. */
const AT_ONCE = 4;
const LOGS = { maxSizeBytes: 2 ** 30, maxFiles: 2 };

let engine: OwnedEngine;
let options: OpenEngineOptions;

async function open(given: OpenEngineOptions): Promise<string> {
  options = { ...given, log: testLog };
  engine = await openEngine(options);
  await importDemoImage(engine);
  return (await engine.describe()).runtime;
}

async function close(): Promise<void> {
  await endEngine(engine, options);
}

async function containerdPid(): Promise<number> {
  return engine.containerdPid ?? 0;
}

function inParallel<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<unknown> {
  const limiter = new Limiter(AT_ONCE);
  return Promise.all(items.map((item) => limiter.run(() => work(item))));
}

interface Many {
  readonly count: number;
  readonly args?: readonly string[];
}

/** Ids of containers that run. */
async function start({ count, args = ['sleep', '100000'] }: Many): Promise<string[]> {
  const configs = Array.from({ length: count }, (): ContainerConfig => aContainer({ args, logs: LOGS }));
  await inParallel(configs, async (config) => {
    await engine.containers.create(config);
    await engine.containers.start(config.id);
  });
  return configs.map(({ id }) => id);
}

async function remove(ids: readonly string[]): Promise<void> {
  await inParallel(ids, (id) => engine.containers.remove(id));
}

/** Milliseconds to have an image unpacked that is not here. */
async function pull(reference: string): Promise<number> {
  const started = performance.now();
  await engine.images.pull(reference);
  return performance.now() - started;
}

async function removeImage(reference: string): Promise<void> {
  await engine.images.remove(reference, { force: true });
}

/** Lines and bytes that a reader gets of all that a container has written, and milliseconds in which it was. */
async function readAll(args: readonly string[]): Promise<{ lines: number; bytes: number; ms: number }> {
  const config = aContainer({ args: [...args], logs: LOGS });
  await engine.containers.create(config);
  const started = performance.now();
  await engine.containers.start(config.id);
  await engine.containers.wait(config.id);
  const ms = performance.now() - started;
  let [lines, bytes] = [0, 0];
  for await (const some of engine.containers.logs(config.id, { follow: true }))
    for (const { line } of some) {
      lines++;
      bytes += line.length;
    }
  await engine.containers.remove(config.id);
  return { lines, bytes, ms };
}

/** Microseconds of processor time of this process alone. */
async function cpuMicros(): Promise<number> {
  const { user, system } = process.cpuUsage();
  return user + system;
}

const working = answerCalls({
  open,
  close,
  containerdPid,
  start,
  remove,
  pull,
  removeImage,
  readAll,
  cpuMicros,
});
await Promise.race([working, once(process.stdin, 'close')]);
