// Chooses the OCI runtime. crun starts containers with about a third less CPU than runc, but does not work everywhere:
// a self-test at start decides, and its outcome is remembered until the binary changes.

import { execFile } from 'node:child_process';
import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { bindReadOnly } from '../containerd/mounts.ts';
import { seccompProfile } from '../containers/seccomp.ts';
import { DEFAULT_CAPABILITIES } from '../containers/security.ts';
import type { Machine } from '../machine.ts';
import { type Findings, testCrun } from './self-test.ts';

export type RuntimeChoice = 'auto' | 'crun' | 'runc';

export interface Runtime {
  readonly path: string;
  /** "crun 1.8.1" */
  readonly description: string;
  /** crun on a hybrid machine works only where it sees no controllers in the unified hierarchy. */
  readonly hidesUnifiedControllers: boolean;
  /** For containers with users of their own, when another program is to be run for them. */
  readonly ownUsersPath?: string;
  /** See `Findings`. */
  readonly seccompFilter: string | undefined;
  readonly warnings: readonly string[];
}

export interface RuntimeOptions {
  readonly choice: RuntimeChoice;
  readonly runDir: string;
  /** Lasting, and not mounted noexec. */
  readonly dataRoot: string;
  readonly engineId: string;
  readonly machine: Machine;
  readonly log: Logger;
}

const run = promisify(execFile);

/** Throws `failed-precondition` when no runtime works. The run directory is a mount point shared with containerd. */
export async function chooseRuntime(options: RuntimeOptions): Promise<Runtime> {
  const { choice, machine } = options;
  if (choice === 'runc') return runcWith([]);
  const installed = findExecutable('crun');
  if (installed === undefined) {
    if (choice === 'crun') required('crun');
    return runcWith(['crun is not installed: containers start slower, with runc.']);
  }
  // crun copies itself into memory at each of its runs (CVE-2019-5736), unless it lies where it cannot be written to.
  const crun = path.join(options.runDir, 'crun');
  bindReadOnly(installed, crun);
  const { failure, seccompFilter } = await findingsOn(crun, options);
  if (failure === undefined) {
    const hidesUnifiedControllers = machine.isHybrid;
    const ownUsersPath = writeOwnUsersProgram(options.dataRoot, crun);
    const described = await describe('crun', crun);
    return { ...described, hidesUnifiedControllers, ownUsersPath, seccompFilter, warnings: [] };
  }
  if (choice === 'crun') throw new SwarmError('failed-precondition', `crun does not work here: ${failure}`);
  return runcWith([`crun does not work here, runc is used: ${failure}`]);
}

/**
 * crun gives what it has as its standard input to the container's user (seen in 1.8.1). Where that is /dev/null, the machine's
 * own would belong to a container: an empty pipe takes its place.
 */
function writeOwnUsersProgram(directory: string, crun: string): string {
  const file = path.join(directory, 'crun-own-users');
  const quoted = `'${crun.replaceAll("'", "'\\''")}'`;
  const script = `#!/bin/sh
if [ /proc/self/fd/0 -ef /dev/null ]; then exec ${quoted} "$@" <<END
END
fi
exec ${quoted} "$@"
`;
  // It may be running.
  writeFileSync(`${file}.new`, script, { mode: 0o755 });
  renameSync(`${file}.new`, file);
  return file;
}

async function runcWith(warnings: readonly string[]): Promise<Runtime> {
  const described = await describe('runc', required('runc'));
  return { ...described, hidesUnifiedControllers: false, seccompFilter: undefined, warnings };
}

async function describe(name: string, binary: string): Promise<{ path: string; description: string }> {
  const { stdout } = await run(binary, ['--version']);
  const version = /version (\S+)/.exec(stdout)?.[1] ?? 'unknown';
  return { path: binary, description: `${name} ${version}` };
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

/** What the self-test said. Its last answer counts as long as binary and profile are the same. */
async function findingsOn(crun: string, options: RuntimeOptions): Promise<Findings> {
  const { runDir, engineId, machine, log } = options;
  const { mtimeMs, size } = statSync(crun);
  const key = `${crun} ${mtimeMs} ${size} ${JSON.stringify(seccompProfile(DEFAULT_CAPABILITIES, process.arch))}`;
  const cache = path.join(runDir, 'crun-self-test.json');
  const known = readCache(cache);
  if (known?.key === key) return known;
  const findings = await testCrun({ crun, directory: runDir, engineId, machine });
  log.info({ failure: findings.failure, hasFilter: findings.seccompFilter !== undefined }, 'crun tested');
  writeFileSync(cache, JSON.stringify({ key, ...findings }));
  return findings;
}

function readCache(file: string): ({ key: string } & Findings) | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as { key: string } & Findings;
  } catch {
    // Absent or torn: the test is made again.
    return undefined;
  }
}
