// Docker's own seccomp profile, from Debian's source package, fetched and unpacked without being installed.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

export interface DockerRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly { index: number; value: number; valueTwo?: number; op: string }[] | null;
  readonly includes?: {
    readonly caps?: readonly string[];
    readonly arches?: readonly string[];
    readonly minKernel?: string;
  };
  readonly excludes?: { readonly caps?: readonly string[]; readonly arches?: readonly string[] };
}

export interface DockerProfile {
  readonly defaultAction: string;
  readonly archMap: readonly { architecture: string; subArchitectures: readonly string[] }[];
  readonly syscalls: readonly DockerRule[];
}

const PACKAGE = 'golang-github-docker-docker-dev';
const PROFILE = 'usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json';
const DOWNLOAD_TIMEOUT_MS = 60_000;

/** The profile, or why it cannot be had here. */
export function loadDockerProfile(): { profile: DockerProfile } | { missing: string } {
  const directory = mkdtempSync(path.join(tmpdir(), 'tsw-profile-'));
  const options = { cwd: directory, stdio: 'pipe', timeout: DOWNLOAD_TIMEOUT_MS } as const;
  try {
    execFileSync('apt-get', ['download', PACKAGE], options);
    const file = readdirSync(directory).find((name) => name.endsWith('.deb'));
    if (file === undefined) return { missing: `${PACKAGE} was not downloaded` };
    execFileSync('dpkg', ['-x', file, directory], options);
    return { profile: JSON.parse(readFileSync(path.join(directory, PROFILE), 'utf8')) as DockerProfile };
  } catch (error) {
    return { missing: `${PACKAGE} cannot be had: ${(error as Error).message.split('\n')[0]}` };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
