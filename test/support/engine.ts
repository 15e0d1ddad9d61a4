// An engine of its own for a test: temporary directories, a real containerd, and an end that leaves nothing behind.

import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe } from 'node:test';
import type { ContainerConfig, LogQuery, LogRecord } from '../../agent/engine/engine.ts';
import { plainRegistrySettings } from '../../agent/engine/images/registry-settings.ts';
import { type OpenEngineOptions, type OwnedEngine, openEngine } from '../../agent/engine/open.ts';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import { emptyContainerSpec, emptyResourceLimits } from '../../core/generated/objects.ts';
import { buildDemoImage, type DemoImageOptions } from '../../deploy/demo-image.ts';
import { createLogger } from '../../rpc/logger.ts';

/** Why tests with containers cannot run here, or false. */
export const missingForEngine: string | false =
  process.getuid?.() !== 0
    ? 'needs root'
    : (['containerd', 'runc', 'busybox']
        .filter((name) => findExecutable(name) === undefined)
        .map((name) => `needs ${name}`)[0] ?? false);

export const hasCrun = findExecutable('crun') !== undefined;

/** Silent unless TSSWARM_TEST_LOG names a level: expected failures would fill the report. */
export const testLog = createLogger('test.engine');
testLog.level = process.env['TSSWARM_TEST_LOG'] ?? 'silent';

export interface TestEngine extends AsyncDisposable {
  readonly options: OpenEngineOptions;
  engine: OwnedEngine;
  /** Closes the engine and opens another one on the same directories. */
  reopen(): Promise<void>;
}

let serial = 0;

/** Options for an engine that no other test uses. */
export function engineOptions(overrides: Partial<OpenEngineOptions> = {}): OpenEngineOptions {
  // Short: a socket path has 107 bytes.
  const directory = mkdtempSync(path.join(tmpdir(), 'tsw-'));
  // As /run and /var/lib are: containers with users of their own find their root below it.
  chmodSync(directory, 0o711);
  serial += 1;
  return {
    dataRoot: path.join(directory, 'data'),
    runDir: path.join(directory, 'run'),
    engineId: `test-${process.pid}-${serial}`,
    registries: plainRegistrySettings,
    runtime: 'runc',
    log: testLog,
    ...overrides,
  };
}

export async function openTestEngine(overrides: Partial<OpenEngineOptions> = {}): Promise<TestEngine> {
  const options = engineOptions(overrides);
  const self: TestEngine = {
    options,
    engine: await openEngine(options),
    async reopen() {
      await self.engine[Symbol.asyncDispose]();
      self.engine = await openEngine(options);
    },
    async [Symbol.asyncDispose]() {
      await endEngine(self.engine, options);
    },
  };
  return self;
}

/** Removes all containers, ends containerd and deletes the directories. */
export async function endEngine(engine: OwnedEngine, options: OpenEngineOptions): Promise<void> {
  try {
    const containers = await engine.containers.list();
    await Promise.all(containers.map(({ id }) => engine.containers.remove(id)));
  } finally {
    await engine.shutdownContainerd();
    rmSync(path.dirname(options.dataRoot), { recursive: true, force: true });
  }
}

export async function importDemoImage(
  engine: OwnedEngine,
  options: Partial<DemoImageOptions> = {},
): Promise<void> {
  const { archive } = await buildDemoImage({ name: 'demo:1', ...options });
  await engine.images.import(oneChunk(archive));
}

export async function* oneChunk(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

/** The same tests on an engine with runc and on one with crun, where there is one. */
export function onEachRuntime(
  title: string,
  define: (own: () => TestEngine, runtime: 'runc' | 'crun') => void,
  overrides: Partial<OpenEngineOptions> = {},
): void {
  for (const runtime of ['runc', 'crun'] as const) {
    const skip = missingForEngine || (runtime === 'crun' && !hasCrun ? 'needs crun' : false);
    describe(`${title} on ${runtime}`, { skip }, () => {
      let own: TestEngine;
      before(async () => {
        own = await openTestEngine({ ...overrides, runtime });
        await importDemoImage(own.engine);
      });
      after(async () => {
        await own?.[Symbol.asyncDispose]();
      });
      define(() => own, runtime);
    });
  }
}

let containerSerial = 0;

export function aContainer(overrides: Partial<ContainerConfig> = {}): ContainerConfig {
  containerSerial += 1;
  return {
    ...emptyContainerSpec,
    id: `box-${containerSerial}`,
    image: 'demo:1',
    command: [],
    args: ['sleep', '1000'],
    env: [],
    workdir: '',
    user: '',
    groups: [],
    hostname: '',
    labels: {},
    mounts: [],
    readOnly: false,
    tty: false,
    stopSignal: '',
    limits: emptyResourceLimits,
    reservedMemoryBytes: 0,
    logs: { maxSizeBytes: 0, maxFiles: 1 },
    ...overrides,
  };
}

export async function collectLogs(
  engine: OwnedEngine,
  id: string,
  query: LogQuery = {},
): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  for await (const some of engine.containers.logs(id, query)) records.push(...some);
  return records;
}

/** Runs a container to its end; returns its exit code and all it wrote, stdout and stderr apart. */
export async function runToEnd(
  engine: OwnedEngine,
  overrides: Partial<ContainerConfig>,
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const config = aContainer(overrides);
  await engine.containers.create(config);
  try {
    await engine.containers.start(config.id);
    const { exitCode } = await engine.containers.wait(config.id);
    const records = await collectLogs(engine, config.id, { follow: true });
    const text = (stream: string) =>
      records
        .filter((record) => record.stream === stream)
        .map(({ line }) => line)
        .join('');
    return { exitCode, stdout: text('stdout'), stderr: text('stderr') };
  } finally {
    await engine.containers.remove(config.id);
  }
}
