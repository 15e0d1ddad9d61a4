// Tries crun out on this machine, with all that a container has, and takes from it what saves work at every start.

import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { messageOf } from '../../../core/errors.ts';
import { emptyContainerSpec, emptyMount, emptyResourceLimits } from '../../../core/generated/objects.ts';
import { UNIFIED_CONTROLLERS } from '../containerd/supervisor.ts';
import { composeSpec } from '../containers/spec.ts';
import type { Machine } from '../machine.ts';

export interface Findings {
  /** Why crun does not work; absent when it does. */
  readonly failure?: string;
  /**
   * The seccomp profile of containers as crun has compiled it: base64 of the kernel's instructions. Given back to crun
   * it saves the compilation, 4 ms of a start. Absent when this crun does not take it.
   */
  readonly seccompFilter?: string;
}

export interface SelfTestOptions {
  readonly crun: string;
  /** Where the test may make a directory of its own. */
  readonly directory: string;
  readonly engineId: string;
  readonly machine: Machine;
}

const run = promisify(execFile);
const TIMEOUT_MS = 20_000;
const HIDE_SCRIPT = `mount --bind "$0" ${UNIFIED_CONTROLLERS} && exec "$@"`;
/** crun keeps the filter beside its record of a container, from the container's creation to its deletion. */
const COMPILE_SCRIPT = `
  "$0" --root "$1" create --bundle "$2" "$3" >/dev/null 2>&1 && base64 -w 0 "$1/$3/seccomp.bpf"
  "$0" --root "$1" delete --force "$3" >/dev/null 2>&1`;

/** Runs `true` of this machine with limits, seccomp, masked paths and namespaces. */
export async function testCrun({ crun, directory, engineId, machine }: SelfTestOptions): Promise<Findings> {
  const id = `self-test-${process.pid}`;
  const bundle = path.join(directory, id);
  const state = path.join(bundle, 'state');
  const empty = path.join(bundle, 'empty');
  const hiding = ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', HIDE_SCRIPT, empty];
  const runHiding = async (...command: string[]) => {
    const [program = '', ...args] = machine.isHybrid ? [...hiding, ...command] : command;
    return (await run(program, args, { timeout: TIMEOUT_MS })).stdout;
  };
  const failureWith = async (seccompFilter?: string): Promise<string | undefined> => {
    writeConfiguration(bundle, testSpec({ id, engineId, machine, filesDirectory: bundle, seccompFilter }));
    try {
      await runHiding(crun, '--root', state, 'run', '--bundle', bundle, id);
      return undefined;
    } catch (error) {
      const { stderr } = error as { stderr?: string };
      return stderr?.trim() || messageOf(error);
    }
  };
  try {
    mkdirSync(path.join(bundle, 'rootfs'), { recursive: true });
    for (const name of ['empty', 'hostname', 'hosts', 'resolv.conf'])
      writeFileSync(path.join(bundle, name), '');
    const failure = await failureWith();
    if (failure !== undefined) return { failure };
    const seccompFilter = await runHiding('sh', '-c', COMPILE_SCRIPT, crun, state, bundle, id).catch(
      () => '',
    );
    const isTaken = seccompFilter !== '' && (await failureWith(seccompFilter)) === undefined;
    return isTaken ? { seccompFilter } : {};
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
}

function writeConfiguration(bundle: string, spec: Readonly<Record<string, unknown>>): void {
  writeFileSync(path.join(bundle, 'config.json'), JSON.stringify(spec));
}

interface TestSpecInput {
  readonly id: string;
  readonly engineId: string;
  readonly machine: Machine;
  readonly filesDirectory: string;
  readonly seccompFilter: string | undefined;
}

function testSpec(input: TestSpecInput): Readonly<Record<string, unknown>> {
  const host = ['bin', 'sbin', 'lib', 'lib64', 'usr'].map((name) => `/${name}`);
  const present = host.filter((directory) => statSync(directory, { throwIfNoEntry: false })?.isDirectory());
  return composeSpec({
    ...emptyContainerSpec,
    ...input,
    hostDevices: [],
    image: TEST_IMAGE,
    command: ['/bin/true'],
    args: [],
    env: [],
    workdir: '',
    user: { uid: 0, gid: 0, additionalGids: [] },
    hostname: 'self-test',
    mounts: present.map((directory) => ({ ...READ_ONLY_BIND, source: directory, target: directory })),
    files: [],
    readOnly: false,
    tty: false,
    limits: { ...emptyResourceLimits, memoryBytes: 64 * 2 ** 20, pids: 16, cpuNanos: 1e9 },
    reservedMemoryBytes: 0,
  });
}

const READ_ONLY_BIND = { ...emptyMount, type: 'bind', readOnly: true } as const;

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
  shell: [],
  labels: {},
};
