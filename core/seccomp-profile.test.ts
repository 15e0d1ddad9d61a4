import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKernelFrom, parseSeccompProfile, resolveProfile } from './seccomp-profile.ts';

const place = { capabilities: ['CAP_SYS_ADMIN'], architecture: 'amd64', kernel: '6.1.0-debian' };
const rule = (name: string, change: object = {}) => ({ names: [name], action: 'SCMP_ACT_ALLOW', ...change });

test('the rules of a profile hold where their conditions do', () => {
  const document = {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 1,
    archMap: [
      { architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] },
      { architecture: 'SCMP_ARCH_AARCH64', subArchitectures: [] },
    ],
    syscalls: [
      rule('read'),
      rule('mount', { includes: { caps: ['CAP_SYS_ADMIN'] } }),
      rule('reboot', { includes: { caps: ['CAP_SYS_BOOT'] } }),
      rule('clone', { excludes: { caps: ['CAP_SYS_ADMIN'] } }),
      rule('arch_prctl', { includes: { arches: ['amd64'] } }),
      rule('sync_file_range2', { includes: { arches: ['arm64'] } }),
      rule('ptrace', { includes: { minKernel: '4.8' } }),
      rule('future', { includes: { minKernel: '6.2' } }),
      { name: 'old', action: 'SCMP_ACT_LOG', args: [], errnoRet: 38 },
    ],
  };

  assert.deepEqual(resolveProfile(parseSeccompProfile(JSON.stringify(document)), place), {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 1,
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'],
    syscalls: [
      rule('read'),
      rule('mount'),
      rule('arch_prctl'),
      rule('ptrace'),
      { names: ['old'], action: 'SCMP_ACT_LOG', errnoRet: 38 },
    ],
  });
});

test('what is no profile is refused with the reason', () => {
  const good = { defaultAction: 'SCMP_ACT_ALLOW' };
  const cases: [text: string, message: RegExp][] = [
    ['{', /no JSON/],
    ['[]', /no JSON object/],
    ['{}', /needs a defaultAction/],
    [JSON.stringify({ ...good, syscalls: {} }), /syscalls of the profile must be a list/],
    [JSON.stringify({ ...good, syscalls: [{ action: 'SCMP_ACT_ALLOW' }] }), /names no system call/],
    [JSON.stringify({ ...good, syscalls: [{ names: ['read'] }] }), /the rule for read has no action/],
    [JSON.stringify({ ...good, architectures: ['a'], archMap: [{ architecture: 'a' }] }), /both/],
  ];
  for (const [text, message] of cases) assert.throws(() => parseSeccompProfile(text), { message });
});

test('kernels are compared by their numbers', () => {
  assert.ok(isKernelFrom('5.12.0', '5.12'));
  assert.ok(isKernelFrom('6.1', '5.12'));
  assert.ok(!isKernelFrom('5.4.0', '5.12'));
});
