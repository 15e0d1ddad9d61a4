// Engines in processes of their own, for tests that kill them.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { ContainerConfig } from '../../agent/engine/engine.ts';
import type { OpenEngineOptions } from '../../agent/engine/open.ts';

/** A process of its own with the engine in it; the caller kills it. */
export async function spawnEngine(
  options: OpenEngineOptions,
  configs: readonly ContainerConfig[],
): Promise<ChildProcess> {
  const { log: _, ...plain } = options;
  const file = path.join(import.meta.dirname, 'engine-child.ts');
  const child = spawn(process.execPath, [file, JSON.stringify(plain), JSON.stringify(configs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

export async function killHard(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
