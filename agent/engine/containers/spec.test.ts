import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CAPABILITIES } from '../../../core/capabilities.ts';
import { hasCode } from '../../../core/errors.ts';
import {
  emptyContainerSpec,
  emptyMount,
  emptyResourceLimits,
  emptySecurityOptions,
} from '../../../core/generated/objects.ts';
import type { ImageConfiguration } from '../images/manifest.ts';
import {
  composeSpec,
  mergeEnvironment,
  processArguments,
  readSpec,
  type SpecInput,
  shimGroup,
} from './spec.ts';

const image: ImageConfiguration = {
  platform: { os: 'linux', architecture: 'amd64' },
  createdAtMs: 0,
  diffIds: [],
  entrypoint: ['/entry'],
  command: ['serve'],
  env: ['PATH=/bin', 'MODE=image'],
  workdir: '/srv',
  user: '',
  stopSignal: '',
  volumes: [],
  shell: [],
  labels: {},
};

const machine = {
  cgroupVersion: '1',
  isHybrid: false,
  hasSwapAccounting: true,
  hasSysResource: true,
  openFilesMax: 20_000,
  hostname: 'node-1',
  kernel: '6.1.0',
  capabilities: CAPABILITIES,
  hasAppArmor: false,
  hasSeLinux: false,
  hasBlockWeight: true,
  ipcPlaces: ['/dev/shm'],
  hardLimits: {},
} as const;

function anInput(overrides: Partial<SpecInput> = {}): SpecInput {
  return {
    ...emptyContainerSpec,
    hostDevices: [],
    id: 'c1',
    engineId: 'e1',
    image,
    command: [],
    args: [],
    env: [],
    workdir: '',
    user: { uid: 0, gid: 0, additionalGids: [0] },
    hostname: 'box',
    mounts: [],
    files: [],
    readOnly: false,
    tty: false,
    limits: emptyResourceLimits,
    reservedMemoryBytes: 0,
    filesDirectory: '/data/c1',
    machine,
    ...overrides,
  };
}

// biome-ignore lint/suspicious/noExplicitAny: the specification is JSON to us
const specOf = (overrides: Partial<SpecInput> = {}): any => composeSpec(anInput(overrides));

test("without options the specification is Docker's default", () => {
  const spec = specOf();

  assert.deepEqual(
    spec.mounts
      .slice(0, 7)
      .map((mount: Record<string, unknown>) => [
        mount['destination'],
        mount['type'],
        (mount['options'] as string[]).join(),
      ]),
    [
      ['/proc', 'proc', 'nosuid,noexec,nodev'],
      ['/dev', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'],
      ['/dev/pts', 'devpts', 'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5'],
      ['/sys', 'sysfs', 'nosuid,noexec,nodev,ro'],
      ['/sys/fs/cgroup', 'cgroup', 'ro,nosuid,noexec,nodev'],
      ['/dev/mqueue', 'mqueue', 'nosuid,noexec,nodev'],
      ['/dev/shm', 'tmpfs', 'nosuid,noexec,nodev,mode=1777,size=67108864'],
    ],
  );
  assert.deepEqual(
    spec.linux.namespaces.map(({ type }: { type: string }) => type),
    ['mount', 'uts', 'pid', 'ipc', 'network'],
  );
  assert.equal(spec.linux.cgroupsPath, '/tsswarm/e1/c1');
  assert.equal(spec.process.cwd, '/srv');
  assert.deepEqual(spec.process.args, ['/entry', 'serve']);
  assert.deepEqual(spec.process.env, ['PATH=/bin', 'HOSTNAME=box', 'MODE=image']);
  assert.deepEqual(spec.process.capabilities.inheritable, undefined);
  assert.equal(spec.process.capabilities.bounding.length, 14);
  assert.deepEqual(spec.process.rlimits, [{ type: 'RLIMIT_NOFILE', soft: 1_048_576, hard: 1_048_576 }]);
  for (const path of ['/proc/kcore', '/proc/keys', '/sys/firmware'])
    assert.ok(spec.linux.maskedPaths.includes(path));
  assert.deepEqual(Object.keys(spec.linux.resources), ['devices']);
});

test('open files are clamped where the limit cannot be raised', () => {
  const spec = specOf({ machine: { ...machine, hasSysResource: false } });

  assert.deepEqual(spec.process.rlimits, [{ type: 'RLIMIT_NOFILE', soft: 20_000, hard: 20_000 }]);
});

test('limits become resources, the same for both cgroup versions but for the namespace', () => {
  const limits = { ...emptyResourceLimits, cpuNanos: 1_500_000_000, memoryBytes: 1000, pids: 7 };
  const one = specOf({ limits, reservedMemoryBytes: 500 });
  const two = specOf({ limits, reservedMemoryBytes: 500, machine: { ...machine, cgroupVersion: '2' } });

  assert.deepEqual(one.linux.resources.memory, { limit: 1000, swap: 2000, reservation: 500 });
  assert.deepEqual(one.linux.resources.cpu, { period: 100_000, quota: 150_000 });
  assert.deepEqual(one.linux.resources.pids, { limit: 7 });
  assert.deepEqual(two.linux.resources, one.linux.resources);
  assert.deepEqual(two.linux.namespaces.at(-1), { type: 'cgroup' });
  assert.equal(specOf({ limits: { ...limits, cpuNanos: 1 } }).linux.resources.cpu.quota, 1000);
});

test('mounts follow the defaults, and the files of /etc follow them', () => {
  const mounts = [
    {
      ...emptyMount,
      type: 'bind' as const,
      source: '/a',
      target: '/b',
      readOnly: true,
      bindPropagation: 'rslave',
    },
    { ...emptyMount, type: 'tmpfs' as const, target: '/t', tmpfsSizeBytes: 10, tmpfsMode: 0o700 },
  ];
  const spec = specOf({ mounts });

  assert.deepEqual(spec.mounts.slice(7, 9), [
    { destination: '/b', type: 'bind', source: '/a', options: ['rbind', 'ro', 'rslave'] },
    {
      destination: '/t',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['noexec', 'nosuid', 'nodev', 'rw', 'size=10', 'mode=700'],
    },
  ]);
  assert.deepEqual(
    spec.mounts.slice(9).map(({ destination, source }: Record<string, string>) => [destination, source]),
    [
      ['/etc/hostname', '/data/c1/hostname'],
      ['/etc/hosts', '/data/c1/hosts'],
      ['/etc/resolv.conf', '/data/c1/resolv.conf'],
    ],
  );
});

test('command and arguments replace the entry point and the default arguments as in Docker', () => {
  const table: [command: string[], args: string[], expected: string[]][] = [
    [[], [], ['/entry', 'serve']],
    [[], ['x'], ['/entry', 'x']],
    [['sh'], [], ['sh']],
    [['sh'], ['-c'], ['sh', '-c']],
  ];
  for (const [command, args, expected] of table)
    assert.deepEqual(processArguments({ command, args, image }), expected);
  const bare = { ...image, entrypoint: [], command: [] };
  assert.throws(
    () => processArguments({ command: [], args: [], image: bare }),
    (error) => hasCode(error, 'invalid-argument') && error.message === 'no command specified',
  );
});

test('a later variable replaces an earlier one, and a bare name removes it', () => {
  assert.deepEqual(mergeEnvironment(['A=1', 'B=2', 'C=3'], ['A=9', 'B', 'D=', '=x']), ['A=9', 'C=3', 'D=']);
});

test('containers spread over four shims', () => {
  const groups = new Set(Array.from({ length: 200 }, (_, index) => shimGroup(`container-${index}`)));

  assert.equal(groups.size, 4);
});

test('a compiled seccomp profile goes beside the profile, which stays for runtimes that do not know it', () => {
  const [without, compiled] = [specOf(), specOf({ seccompFilter: 'AAAA' })];

  assert.deepEqual(Object.keys(without.annotations), ['io.containerd.runc.v2.group']);
  assert.equal(compiled.annotations['run.oci.seccomp_bpf_data'], 'AAAA');
  assert.deepEqual(compiled.linux.seccomp, without.linux.seccomp);
});

test('a profile that is not the one compiled beforehand is compiled by the runtime', () => {
  const filterOf = (overrides: Partial<SpecInput>) =>
    specOf({ seccompFilter: 'AAAA', ...overrides }).annotations['run.oci.seccomp_bpf_data'];
  const seccomp = (profile: string) => ({ security: { ...emptySecurityOptions, seccomp: profile } });

  assert.equal(filterOf({ capabilitiesDropped: ['CAP_CHOWN'] }), 'AAAA');
  assert.equal(filterOf({ capabilitiesAdded: ['CAP_NET_ADMIN'] }), 'AAAA');
  assert.equal(filterOf({ capabilitiesAdded: ['CAP_SYS_ADMIN'] }), undefined);
  assert.equal(filterOf({ capabilitiesDropped: ['ALL'] }), undefined);
  assert.equal(filterOf({ privileged: true }), undefined);
  assert.equal(filterOf(seccomp('unconfined')), undefined);
  assert.equal(filterOf(seccomp('{"defaultAction":"SCMP_ACT_ALLOW"}')), undefined);
});

test('a container with users of its own joins their namespace, and has echoes for its groups alone', () => {
  const users = { firstId: 2_000_224_256, userNamespace: '/users/u', networkNamespace: '/users/n' };
  const { linux } = specOf({ users, networkNamespacePath: '/pin' });
  const mappings = [{ containerID: 0, hostID: 2_000_224_256, size: 65_536 }];

  assert.deepEqual([linux.uidMappings, linux.gidMappings], [mappings, mappings]);
  assert.deepEqual(
    linux.namespaces.filter(({ path }: { path?: string }) => path !== undefined),
    [
      { type: 'network', path: '/pin' },
      { type: 'user', path: '/users/u' },
    ],
  );
  // The kernel takes no group that the namespace does not have.
  assert.equal(linux.sysctl['net.ipv4.ping_group_range'], '0 65535');
  assert.equal(specOf({}).linux.uidMappings, undefined);
});

test('swap is what is said beside the memory, as much as memory, or not limited', () => {
  const swap = (swapBytes?: number) => {
    const limits = {
      ...emptyResourceLimits,
      memoryBytes: 100,
      ...(swapBytes !== undefined && { swapBytes }),
    };
    return specOf({ limits }).linux.resources.memory.swap;
  };

  assert.deepEqual([swap(), swap(0), swap(50), swap(-1)], [200, 100, 150, -1]);
});

test('a specification keeps numbers that JavaScript has none for', () => {
  const text = JSON.stringify(specOf({ ulimits: [{ name: 'core', soft: 0, hard: -1 }] }));

  assert.match(text, /"type":"RLIMIT_CORE","soft":0,"hard":18446744073709551615\}/);
  assert.equal(JSON.stringify(readSpec(text)), text);
});
