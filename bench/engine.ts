// The local engine: what a container costs beside the bare runtime, a pull beside containerd's own client and skopeo, how much
// a container may write, and what five hundred of them cost while nothing happens.

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { containerdPlaces } from '../agent/engine/containerd/configuration.ts';
import { findExecutable } from '../agent/engine/runtime/runtime.ts';
import { buildDemoImage, type DemoImage } from '../deploy/demo-image.ts';
import { CallableProgram, Program } from '../test/network/lab.ts';
import { engineOptions } from '../test/support/engine.ts';
import { type RealRegistry, startRegistry } from '../test/support/real-registry.ts';
import { measureBare } from './bare-runtime.ts';
import { CpuMeter } from './cpu-meter.ts';
import type { BenchOptions } from './main.ts';
import { againstFloor, againstLimit, againstPeer, median, type Row } from './report.ts';

const CONTAINERS = 200;
const CONTAINERS_QUICK = 40;
const RUNTIME_RATIO_MAX = 1.6;
const LAYERS = 5;
const LAYER_BYTES = 50e6;
const PULLS = 3;
const MEGABYTE = 1e6;
const LOG_MEGABYTES = 500;
const LOG_MEGABYTES_QUICK = 150;
/** With its end 80 bytes. */
const LOG_LINE = 'a line of a log as programs write them, with some eighty characters in it or so';
const LOG_RATE_MIN = 50;
const WRITERS = 100;
const WRITING_SECONDS = 10;
const IDLE_CONTAINERS = 500;
const IDLE_CONTAINERS_QUICK = 100;
const IDLE_SECONDS = 20;
const IDLE_PERCENT_MAX = 2;
const START_LIMIT_MS = 300_000;

/** Bars: a container at most 1.6 of bare runc; a pull no slower than ctr; 50 MB/s of log, 100 × 1 MB/s in one core; idle below 2 % of one. */
export async function engineBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const count = isQuick ? CONTAINERS_QUICK : CONTAINERS;
  const own = new Map<string, number>();
  const bare = new Map<string, number>();
  for (const runtime of ['runc', 'crun'] as const) {
    if (findExecutable(runtime) === undefined) continue;
    await using engine = await EngineProcess.start(runtime);
    const found = await measureContainers(engine, runtime, count);
    own.set(runtime, found.own);
    bare.set(runtime, found.alone);
    const row = againstPeer(`a container started and removed, ${runtime}`, 'ms', found.own, found.alone, 1);
    rows.push({ what: row.what, value: row.value, unit: 'ms', peer: row.peer!, ratio: row.ratio! });
  }
  await using engine = await EngineProcess.start('auto');
  // With runc most of what is more is containerd's shim, so that crun is what the engine takes where it works.
  const [chosen = 'runc'] = engine.runtime.split(' ');
  const what = `as the engine chooses (${chosen}), against bare runc`;
  rows.push(againstPeer(what, 'ms', own.get(chosen) ?? 0, bare.get('runc') ?? 0, RUNTIME_RATIO_MAX));
  rows.push(...(await measurePulls(engine)));
  rows.push(...(await measureLogs(engine, isQuick ? LOG_MEGABYTES_QUICK : LOG_MEGABYTES)));
  rows.push(...(await measureIdle(engine, isQuick ? IDLE_CONTAINERS_QUICK : IDLE_CONTAINERS)));
  return rows;
}

class EngineProcess implements AsyncDisposable {
  readonly options = engineOptions();
  readonly meter: CpuMeter;
  readonly #program: CallableProgram;
  /** "crun 1.8.1" */
  runtime = '';

  private constructor(program: Program) {
    this.#program = new CallableProgram(program);
    this.meter = new CpuMeter('engine', `tsswarm/${this.options.engineId}`);
    this.meter.watch(this.pid);
  }

  static async start(runtime: 'runc' | 'crun' | 'auto'): Promise<EngineProcess> {
    const program = new Program('/proc/self/ns/net', '../../bench/engine-process.ts', []);
    const first = await program.line();
    if (first !== 'ready') throw new Error(`engine-process.ts: ${first}`);
    const engine = new EngineProcess(program);
    const { log: _, ...options } = engine.options;
    engine.runtime = await engine.call('open', { ...options, runtime });
    return engine;
  }

  get pid(): number {
    return this.#program.program.process.pid ?? 0;
  }

  call<T>(method: string, argument?: unknown): Promise<T> {
    return this.#program.call<T>(method, argument, START_LIMIT_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.call('close');
    await this.#program.program.kill();
    this.meter[Symbol.dispose]();
  }
}

/** Milliseconds of processor time for each container: of the engine and all that it starts, and of the runtime alone. */
async function measureContainers(
  engine: EngineProcess,
  runtime: string,
  count: number,
): Promise<{ own: number; alone: number }> {
  // The first one brings shims, and shows what the runtime is given.
  const [first = ''] = await engine.call<string[]>('start', { count: 1 });
  const { state } = containerdPlaces(engine.options.dataRoot, engine.options.runDir);
  const bundles = path.join(state, 'io.containerd.runtime.v2.task');
  const [namespace = ''] = readdirSync(bundles);
  const bundle = path.join(bundles, namespace, first);
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-bare-'));
  try {
    const before = engine.meter.micros;
    await engine.call('remove', await engine.call<string[]>('start', { count }));
    const own = (engine.meter.micros - before) / count;
    const containerdPid = await engine.call<number>('containerdPid');
    const peer = { runtime: findExecutable(runtime) ?? runtime, bundle, containerdPid };
    const alone = measureBare(peer, directory, count);
    return { own: own / 1000, alone: alone / 1000 };
  } finally {
    rmSync(directory, { recursive: true, force: true });
    await engine.call('remove', [first]);
  }
}

/** Layers that do not compress, so that all have as much to carry. */
async function largeImage(): Promise<Pick<DemoImage, 'manifest' | 'blobs'>> {
  const layers = Array.from({ length: LAYERS }, (_, index) => ({
    [`data/${index}`]: randomBytes(LAYER_BYTES),
  }));
  return buildDemoImage({ name: 'large:1', layers });
}

async function measurePulls(engine: EngineProcess): Promise<Row[]> {
  await using registry: RealRegistry = await startRegistry();
  const { socketPath } = containerdPlaces(engine.options.dataRoot, engine.options.runDir);
  const ctr = (...words: string[]) =>
    execFileSync('ctr', ['--address', socketPath, '--namespace', 'bench', ...words], { stdio: 'ignore' });
  const times = { own: [] as number[], ctr: [] as number[], skopeo: [] as number[] };
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'tsw-pull-'));
  try {
    for (let round = 0; round < PULLS; round++) {
      // Of its own for each: what one has fetched the others would find.
      const push = async (who: string): Promise<string> => {
        await registry.push(`${who}-${round}`, '1', await largeImage());
        return `${registry.host}/${who}-${round}:1`;
      };
      const wall = (work: () => void): number => {
        const started = performance.now();
        work();
        return performance.now() - started;
      };
      const own = await push('own');
      times.own.push(await engine.call<number>('pull', own));
      await engine.call('removeImage', own);
      const theirs = await push('ctr');
      times.ctr.push(wall(() => ctr('images', 'pull', '--plain-http', theirs)));
      ctr('images', 'rm', '--sync', theirs);
      if (findExecutable('skopeo') !== undefined)
        times.skopeo.push(
          wall(() =>
            execFileSync(
              'skopeo',
              ['copy', '--src-tls-verify=false', `docker://${own}`, `oci:${scratch}/${round}`],
              { stdio: 'ignore' },
            ),
          ),
        );
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  const seconds = (values: readonly number[]) => median(values) / 1000;
  return [
    againstPeer('pull of 250 MB, unpacked (ctr)', 's', seconds(times.own), seconds(times.ctr), 1),
    ...(times.skopeo.length === 0
      ? []
      : [{ what: 'skopeo, not unpacked', value: Number(seconds(times.skopeo).toPrecision(4)), unit: 's' }]),
  ];
}

async function measureLogs(engine: EngineProcess, megabytes: number): Promise<Row[]> {
  const lines = MEGABYTE / (LOG_LINE.length + 1);
  const megabyte = `yes '${LOG_LINE}' | head -n ${lines} > /tmp/mb`;
  // Faster than this is given up beyond 64 MB, and said in the log: nothing holds up a container that writes.
  const paced = `i=0; while [ $i -lt ${megabytes} ]; do cat /tmp/mb; i=$((i+1)); sleep 0.01; done`;
  const args = ['sh', '-c', `${megabyte}; ${paced}`];
  const all = await engine.call<{ lines: number; bytes: number; ms: number }>('readAll', args);
  if (all.lines !== lines * megabytes)
    throw new Error(`${lines * megabytes - all.lines} of ${lines * megabytes} lines were lost`);
  const script = `${megabyte}; while :; do cat /tmp/mb; sleep 1; done`;
  const ids = await engine.call<string[]>('start', { count: WRITERS, args: ['sh', '-c', script] });
  const before = await engine.call<number>('cpuMicros');
  await delay(WRITING_SECONDS * 1000);
  const micros = (await engine.call<number>('cpuMicros')) - before;
  await engine.call('remove', ids);
  return [
    againstFloor('log of one container, all lines kept', 'MB/s', all.bytes / 1000 / all.ms, LOG_RATE_MIN),
    againstLimit(`cores for ${WRITERS} × 1 MB/s`, '', micros / 1e6 / WRITING_SECONDS, 1),
  ];
}

async function measureIdle(engine: EngineProcess, count: number): Promise<Row[]> {
  const ids = await engine.call<string[]>('start', { count });
  // What the start has left to do.
  await delay(5_000);
  const containerd = await engine.call<number>('containerdPid');
  const pids = [engine.pid, containerd];
  const before = pids.map(ticksOf);
  await delay(IDLE_SECONDS * 1000);
  const ticks = pids.map(ticksOf).reduce((sum, value, index) => sum + value - (before[index] ?? 0), 0);
  const shims = execFileSync('pgrep', ['-f', engine.options.engineId], { encoding: 'utf8' });
  const all = new Set([...pids, ...shims.trim().split('\n').map(Number)]);
  const kilobytes = [...all].map(pssOf).reduce((sum, value) => sum + value, 0);
  await engine.call('remove', ids);
  return [
    againstLimit(
      `${count} idle containers, engine and containerd`,
      '% of a core',
      (ticks / TICKS_A_SECOND / IDLE_SECONDS) * 100,
      IDLE_PERCENT_MAX,
    ),
    { what: 'memory for each of them, with shims', value: Math.round(kilobytes / count), unit: 'kB' },
  ];
}

/** Linux's USER_HZ. */
const TICKS_A_SECOND = 100;

function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function pssOf(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
  } catch {
    // It has ended meanwhile.
    return 0;
  }
}
