import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DockerProfile, loadDockerProfile } from '../../../test/support/docker-profile.ts';
import { type SeccompRule, seccompProfile } from './seccomp.ts';
import { DEFAULT_CAPABILITIES } from './security.ts';

const docker = loadDockerProfile();
const skip = 'missing' in docker ? docker.missing : false;

/** Docker's rules for a container, the way Docker evaluates them on a kernel of today. */
function evaluate(
  profile: DockerProfile,
  capabilities: readonly string[],
  architecture: string,
): SeccompRule[] {
  return profile.syscalls
    .filter(({ includes = {}, excludes = {} }) => {
      if (includes.arches?.length && !includes.arches.includes(architecture)) return false;
      if (includes.caps?.length && !includes.caps.every((capability) => capabilities.includes(capability)))
        return false;
      if (excludes.arches?.includes(architecture)) return false;
      return !excludes.caps?.some((capability) => capabilities.includes(capability));
    })
    .map((rule) => ({ ...rule, args: rule.args ?? [] }) as unknown as SeccompRule);
}

/** Rules as text, one per system call and condition, so that sets can be compared. */
function flatten(rules: readonly SeccompRule[]): string[] {
  const lines = rules.flatMap((rule) =>
    rule.names.map((name) => {
      const conditions = (rule.args ?? []).map(
        ({ index, value, valueTwo = 0, op }) => `arg${index} ${op} ${value} ${valueTwo}`,
      );
      return [name, rule.action, rule.errnoRet ?? '', ...conditions].join(' ');
    }),
  );
  return [...new Set(lines)].sort();
}

const sets: [what: string, capabilities: readonly string[]][] = [
  ['the default capabilities', DEFAULT_CAPABILITIES],
  ['no capabilities', []],
  ['CAP_SYS_ADMIN', [...DEFAULT_CAPABILITIES, 'CAP_SYS_ADMIN']],
  [
    'all capabilities that matter',
    [
      ...DEFAULT_CAPABILITIES,
      ...'DAC_READ_SEARCH SYS_ADMIN SYS_BOOT SYS_MODULE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_TIME SYS_TTY_CONFIG SYS_NICE SYSLOG'
        .split(' ')
        .map((name) => `CAP_${name}`),
    ],
  ],
];

for (const [what, capabilities] of sets) {
  test(`with ${what} the same system calls are allowed as by Docker`, { skip }, () => {
    assert.ok('profile' in docker);
    for (const [own, dockers] of [
      ['x64', 'amd64'],
      ['arm64', 'arm64'],
    ] as const) {
      const profile = seccompProfile(capabilities, own);

      assert.deepEqual(
        flatten(profile?.syscalls ?? []),
        flatten(evaluate(docker.profile, capabilities, dockers)),
      );
    }
  });
}

test("the architectures are Docker's, without x32", { skip }, () => {
  assert.ok('profile' in docker);
  const map = new Map(docker.profile.archMap.map((item) => [item.architecture, item.subArchitectures]));

  for (const architecture of ['x64', 'arm64']) {
    const [first = '', ...others] = seccompProfile([], architecture)?.architectures ?? [];
    assert.deepEqual(
      others,
      map.get(first)?.filter((name) => name !== 'SCMP_ARCH_X32'),
    );
  }
});

test('everything that is not listed fails with EPERM', () => {
  const profile = seccompProfile(DEFAULT_CAPABILITIES, 'x64');

  assert.equal(profile?.defaultAction, 'SCMP_ACT_ERRNO');
  assert.equal(profile?.defaultErrnoRet, 1);
});
