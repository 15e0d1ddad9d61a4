// Chooses the OCI runtime. crun starts containers with about a third less CPU than runc, but does not work everywhere:
// a self-test at start decides, and its outcome is remembered until the binary changes.

import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { messageOf, SwarmError } from '../../../core/errors.ts';
import { emptyResourceLimits } from '../../../core/generated/objects.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { UNIFIED_CONTROLLERS } from '../containerd/supervisor.ts';
import { composeSpec } from '../containers/spec.ts';
import type { Machine } from '../machine.ts';

export type RuntimeChoice = 'auto' | 'crun' | 'runc';

export interface Runtime {
  readonly path: string;
  /** "crun 1.8.1" */
  readonly description: string;
  /** crun on a hybrid machine works only where it sees no controllers in the unified hierarchy. */
  readonly hidesUnifiedControllers: boolean;
  readonly warnings: readonly string[];
}

export interface RuntimeOptions {
  readonly choice: RuntimeChoice;
  readonly runDir: string;
  readonly engineId: string;
  readonly machine: Machine;
  readonly log: Logger;
}

const run = promisify(execFile);
const SELF_TEST_TIMEOUT_MS = 20_000;
const HIDE_SCRIPT = `mount --bind "$0" ${UNIFIED_CONTROLLERS} && exec "$@"`;

/** Throws `failed-precondition` when no runtime works. */
export async function chooseRuntime(options: RuntimeOptions): Promise<Runtime> {
  const { choice, machine } = options;
  if (choice === 'runc') return describe('runc', required('runc'), false, []);
  const crun = findExecutable('crun');
  if (crun === undefined) {
    if (choice === 'crun') required('crun');
    return describe('runc', required('runc'), false, [
      'crun is not installed: containers start slower, with runc.',
    ]);
  }
  const failure = await crunFailure(crun, options);
  if (failure === undefined) return describe('crun', crun, machine.isHybrid, []);
  if (choice === 'crun') throw new SwarmError('failed-precondition', `crun does not work here: ${failure}`);
  return describe('runc', required('runc'), false, [`crun does not work here, runc is used: ${failure}`]);
}

async function describe(
  name: 'crun' | 'runc',
  binary: string,
  hidesUnifiedControllers: boolean,
  warnings: readonly string[],
): Promise<Runtime> {
  const { stdout } = await run(binary, ['--version']);
  const version = /version (\S+)/.exec(stdout)?.[1] ?? 'unknown';
  return { path: binary, description: `${name} ${version}`, hidesUnifiedControllers, warnings };
}

function required(name: string): string {
  const binary = findExecutable(name);
  if (binary !== undefined) return binary;
  throw new SwarmError('failed-precondition', `${name} is not installed`, {
    hint: `Install the package ${name}.`,
  });
}

/** The program's place in PATH. */
export function findExecutable(name: string): string | undefined {
  if (name.includes('/')) return statSync(name, { throwIfNoEntry: false })?.isFile() ? name : undefined;
  return (process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin')
    .split(':')
    .map((directory) => path.join(directory, name))
    .find((file) => statSync(file, { throwIfNoEntry: false })?.isFile());
}

/** Why crun fails, or undefined when it works. The last answer counts as long as the binary is the same. */
async function crunFailure(crun: string, options: RuntimeOptions): Promise<string | undefined> {
  const { mtimeMs, size } = statSync(crun);
  const key = `${crun} ${mtimeMs} ${size}`;
  const cache = path.join(options.runDir, 'crun-self-test.json');
  const known = readCache(cache);
  if (known?.key === key) return known.failure;
  const failure = await selfTest(crun, options);
  options.log.info({ failure }, 'crun tested');
  writeFileSync(cache, JSON.stringify({ key, failure }));
  return failure;
}

function readCache(file: string): { key: string; failure?: string } | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as { key: string; failure?: string };
  } catch {
    // Absent or torn: the test is made again.
    return undefined;
  }
}

/** Runs `true` of this machine with all that a container has: limits, seccomp, masked paths, own namespaces. */
async function selfTest(crun: string, options: RuntimeOptions): Promise<string | undefined> {
  const { runDir, engineId, machine } = options;
  const id = `self-test-${process.pid}`;
  const bundle = path.join(runDir, id);
  const empty = path.join(runDir, 'empty');
  const host = ['bin', 'sbin', 'lib', 'lib64', 'usr'].map((name) => `/${name}`);
  const present = host.filter((directory) => statSync(directory, { throwIfNoEntry: false })?.isDirectory());
  mkdirSync(path.join(bundle, 'rootfs'), { recursive: true });
  try {
    for (const name of ['hostname', 'hosts', 'resolv.conf']) writeFileSync(path.join(bundle, name), '');
    writeFileSync(empty, '');
    const spec = composeSpec({
      id,
      engineId,
      image: TEST_IMAGE,
      command: ['/bin/true'],
      args: [],
      env: [],
      workdir: '',
      user: { uid: 0, gid: 0, additionalGids: [] },
      hostname: 'self-test',
      mounts: present.map((directory) => ({ ...READ_ONLY_BIND, source: directory, target: directory })),
      readOnly: false,
      tty: false,
      limits: { ...emptyResourceLimits, memoryBytes: 64 * 2 ** 20, pids: 16, cpuNanos: 1e9 },
      reservedMemoryBytes: 0,
      filesDirectory: bundle,
      machine,
    });
    writeFileSync(path.join(bundle, 'config.json'), JSON.stringify(spec));
    const command = [crun, '--root', path.join(bundle, 'state'), 'run', '--bundle', bundle, id];
    const hiding = ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', HIDE_SCRIPT, empty];
    const [program, ...args] = machine.isHybrid ? [...hiding, ...command] : command;
    await run(program as string, args, { timeout: SELF_TEST_TIMEOUT_MS });
    return undefined;
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    return stderr?.trim() || messageOf(error);
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
}

const READ_ONLY_BIND = {
  type: 'bind',
  readOnly: true,
  bindPropagation: '',
  tmpfsSizeBytes: 0,
  tmpfsMode: 0,
} as const;

const TEST_IMAGE = {
  platform: { os: 'linux', architecture: '' },
  createdAtMs: 0,
  diffIds: [],
  entrypoint: [],
  command: [],
  env: [],
  workdir: '',
  user: '',
  stopSignal: '',
  volumes: [],
  labels: {},
};
