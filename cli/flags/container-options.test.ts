import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ContainerSpec, ServiceSpec } from '../../core/generated/objects.ts';
import { validateServiceSpec } from '../../core/validate-spec.ts';
import { parseDevice, parseGpus } from './container-values.ts';
import { parseFlags } from './parse-flags.ts';
import { createFlags, updateFlags } from './service-flags.ts';
import { changedSpec, newSpec } from './service-spec.ts';

const profile = '{"defaultAction":"SCMP_ACT_ALLOW"}';
const source = {
  environment: {},
  workdir: '/home/op',
  networkIds: new Map<string, string>(),
  seccompProfiles: new Map([['p.json', profile]]),
};

function created(...argv: readonly string[]): ServiceSpec {
  const { flags } = parseFlags(createFlags, argv);
  const spec = newSpec(flags, { name: 'web', image: 'nginx', args: [], envFileLines: [], ...source });
  validateServiceSpec(spec);
  return spec;
}

function updated(current: ServiceSpec, ...argv: readonly string[]): ServiceSpec {
  const spec = changedSpec(current, parseFlags(updateFlags, argv).flags, source);
  validateServiceSpec(spec);
  return spec;
}

const words = (line: string) => line.split(' ');
const containerOf = ({ task }: ServiceSpec): ContainerSpec => task.container;

const EVERYTHING = [
  ...words(
    '--host db:10.0.0.9 --host=six=[2001:db8::1] --dns 10.0.0.53 --dns-search example.com --dns-option ndots:2',
  ),
  ...words('--ulimit nofile=100:200 --ulimit core=-1 --sysctl net.core.somaxconn=512 --cap-add net_admin'),
  ...words(
    '--cap-drop CAP_MKNOD --init --oom-score-adj 100 --device /dev/fuse --device /dev/null:/dev/hole:r',
  ),
  '--device-cgroup-rule',
  'c 1:3 rwm',
  ...words(
    '--pid host --ipc none --uts private --userns host --cgroupns private --shm-size 128m --runtime crun',
  ),
  ...words(
    '--cgroup-parent /batch --annotation a.b=c --tmpfs /run:size=1m,mode=700,exec,ro --limit-memory 64m',
  ),
  ...words('--memory-swap 32m --memory-swappiness 10 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-shares 512'),
  ...words('--blkio-weight 500 --security-opt seccomp=p.json --security-opt no-new-privileges'),
  ...words(
    '--security-opt apparmor=web --security-opt label=type:web_t --security-opt systempaths=unconfined',
  ),
  ...words('--isolation default --privileged'),
];

test('each option of a container lands in its field', () => {
  const spec = created(...EVERYTHING);
  const container = containerOf(spec);

  assert.deepEqual(container.hosts, ['10.0.0.9 db', '2001:db8::1 six']);
  assert.deepEqual(container.dns, {
    nameServers: ['10.0.0.53'],
    search: ['example.com'],
    options: ['ndots:2'],
  });
  assert.deepEqual(container.ulimits, [
    { name: 'nofile', soft: 100, hard: 200 },
    { name: 'core', soft: -1, hard: -1 },
  ]);
  assert.deepEqual(container.sysctls, { 'net.core.somaxconn': '512' });
  assert.deepEqual(
    [container.capabilitiesAdded, container.capabilitiesDropped],
    [['CAP_NET_ADMIN'], ['CAP_MKNOD']],
  );
  assert.deepEqual(container.devices, [
    { pathOnHost: '/dev/fuse', pathInContainer: '/dev/fuse', permissions: 'rwm' },
    { pathOnHost: '/dev/null', pathInContainer: '/dev/hole', permissions: 'r' },
  ]);
  assert.deepEqual(container.deviceCgroupRules, ['c 1:3 rwm']);
  const { pidMode, ipcMode, utsMode, usernsMode, cgroupnsMode } = container;
  assert.deepEqual(
    [pidMode, ipcMode, utsMode, usernsMode, cgroupnsMode],
    [...words('host none private host private')],
  );
  assert.deepEqual([container.init, container.oomScoreAdj, container.privileged], [true, 100, true]);
  assert.deepEqual([container.shmSizeBytes, container.runtime], [128 * 2 ** 20, 'crun']);
  assert.deepEqual([container.cgroupParent, container.annotations], ['/batch', { 'a.b': 'c' }]);
  const [tmpfs] = container.mounts;
  assert.deepEqual([tmpfs?.target, tmpfs?.tmpfsSizeBytes, tmpfs?.tmpfsMode], ['/run', 2 ** 20, 0o700]);
  assert.deepEqual([tmpfs?.tmpfsOptions, tmpfs?.readOnly], [['exec'], true]);
  const { swapBytes, memorySwappiness, cpusetCpus, cpusetMems, cpuShares, blkioWeight } =
    spec.task.resources.limits;
  assert.deepEqual([swapBytes, memorySwappiness, cpuShares, blkioWeight], [32 * 2 ** 20, 10, 512, 500]);
  assert.deepEqual([cpusetCpus, cpusetMems], ['0-1', '0']);
  assert.deepEqual(container.security, {
    noNewPrivileges: true,
    seccomp: profile,
    appArmor: 'web',
    seLinux: { disabled: false, user: '', role: '', type: 'web_t', level: '' },
    systemPathsUnconfined: true,
  });
});

test('an update without flags leaves every option, and -rm takes each away again', () => {
  const spec = created(...EVERYTHING);
  assert.deepEqual(updated(spec), spec);

  const bare = updated(
    spec,
    ...words('--host-rm db --host-rm six:2001:db8::1 --dns-rm 10.0.0.53 --dns-search-rm example.com'),
    ...words('--dns-option-rm ndots:2 --ulimit-rm nofile --ulimit-rm core --sysctl-rm net.core.somaxconn'),
    ...words('--cap-add RESET --cap-drop RESET --init=false --oom-score-adj 0 --device-rm /dev/fuse'),
    ...words('--device-rm /dev/hole --pid private --ipc= --cgroupns= --userns= --shm-size 0 --runtime='),
    '--device-cgroup-rule-rm',
    'c 1:3 rwm',
    ...words('--annotation-rm a.b --tmpfs-rm /run --memory-swappiness -1 --cpu-shares 0 --blkio-weight 0'),
    ...words('--security-opt-rm seccomp --security-opt-rm no-new-privileges --security-opt-rm apparmor'),
    ...words('--security-opt-rm label --security-opt-rm systempaths --privileged=false'),
    '--cgroup-parent',
    '',
    '--cpuset-cpus',
    '',
  );

  const container = containerOf(bare);
  const { ipcMode, cgroupnsMode, usernsMode, runtime } = container;
  assert.deepEqual([ipcMode, cgroupnsMode, usernsMode, runtime], ['', '', '', '']);
  const lists = [container.hosts, container.ulimits, container.devices, container.deviceCgroupRules];
  for (const list of [...lists, container.capabilitiesAdded, container.capabilitiesDropped, container.mounts])
    assert.deepEqual(list, []);
  assert.deepEqual([container.sysctls, container.annotations], [{}, {}]);
  assert.deepEqual([container.dns, container.security], [undefined, undefined]);
  assert.equal(bare.task.resources.limits.memorySwappiness, undefined);
});

test('what an update adds of the same key takes the place of what was there', () => {
  const spec = created(...EVERYTHING);

  const next = containerOf(
    updated(
      spec,
      ...words('--ulimit-add nofile=5 --device-add /dev/zero:/dev/hole --sysctl-add net.core.somaxconn=9'),
      ...words(
        '--annotation-add a.b=d --tmpfs-add /run --host-add db:10.0.0.10 --security-opt-add seccomp=builtin',
      ),
    ),
  );

  assert.deepEqual(next.ulimits[0], { name: 'nofile', soft: 5, hard: 5 });
  assert.equal(next.devices[1]?.pathOnHost, '/dev/zero');
  assert.deepEqual([next.sysctls['net.core.somaxconn'], next.annotations['a.b']], ['9', 'd']);
  assert.deepEqual(next.mounts[0]?.tmpfsOptions, []);
  assert.deepEqual(next.hosts, ['10.0.0.9 db', '2001:db8::1 six', '10.0.0.10 db']);
  assert.equal(next.security?.seccomp, '');
});

test('capabilities are added and dropped as in Docker', () => {
  const lists = (spec: ServiceSpec) => [
    containerOf(spec).capabilitiesAdded.join(),
    containerOf(spec).capabilitiesDropped.join(),
  ];
  const spec = created(...words('--cap-add NET_ADMIN --cap-drop MKNOD --cap-drop chown'));

  assert.deepEqual(lists(spec), ['CAP_NET_ADMIN', 'CAP_CHOWN,CAP_MKNOD']);
  assert.deepEqual(lists(updated(spec, '--cap-drop', 'NET_ADMIN')), [
    '',
    'CAP_CHOWN,CAP_MKNOD,CAP_NET_ADMIN',
  ]);
  assert.deepEqual(lists(updated(spec, '--cap-add', 'MKNOD')), ['CAP_MKNOD,CAP_NET_ADMIN', 'CAP_CHOWN']);
  assert.deepEqual(lists(updated(spec, '--cap-drop', 'ALL')), ['CAP_NET_ADMIN', 'ALL']);
  assert.deepEqual(lists(updated(spec, ...words('--cap-drop RESET --cap-drop KILL'))), [
    'CAP_NET_ADMIN',
    'CAP_KILL',
  ]);
  assert.deepEqual(lists(created(...words('--cap-add CHOWN --cap-drop CHOWN'))), ['CAP_CHOWN', '']);
});

test('values that mean nothing are refused with what would be right', () => {
  const cases: [argv: string, message: RegExp][] = [
    ['--host db', /must be NAME:ADDRESS/],
    ['--host db:here', /^host: "here" must be an IP address/],
    ['--dns nowhere', /^dns: "nowhere" must be an IP address/],
    ['--ulimit files=1', /^ulimit: "files" is unknown; known are core/],
    ['--ulimit nofile=5:4', /^ulimit: nofile: the soft limit 5/],
    ['--ulimit nofile', /must be NAME=SOFT\[:HARD\]/],
    ['--sysctl vm.swappiness=1', /^sysctl: "vm.swappiness" is not of a namespace/],
    ['--sysctl net.core.somaxconn=1 --network host', /would be the node's, with the network host/],
    ['--sysctl kernel.sem=1 --ipc host', /would be the node's, with ipc=host/],
    ['--cap-add FLY', /must be a capability such as NET_ADMIN/],
    ['--oom-score-adj 1001', /^oom-score-adj: 1001 must be from -1000 to 1000/],
    ['--device fuse', /must be \/dev\/NAME/],
    ['--device /dev/fuse:/dev/f:rx', /^device: \/dev\/fuse: permissions "rx"/],
    ['--device-cgroup-rule c:1', /^device-cgroup-rule: /],
    ['--pid container:x', /must be "host" or "private"/],
    ['--userns keep-id', /must be "host" or "private"/],
    ['--userns private --privileged', /^userns: "private" conflicts with privileged/],
    ['--userns private --pid host', /^userns: "private" conflicts with pid=host/],
    ['--userns private --network host', /^userns: "private" conflicts with the network host/],
    ['--uts host --hostname x', /^hostname: conflicts with uts=host/],
    ['--memory-swap 1m', /^memory-swap: needs limit-memory/],
    ['--memory-swappiness 101', /^memory-swappiness: 101 must be from 0 to 100/],
    ['--cpu-shares 1', /^cpu-shares: 1 must be from 2 to 262144/],
    ['--cpuset-cpus first', /^cpuset-cpus: "first" must be a list/],
    ['--cgroup-parent ../x', /^cgroup-parent: /],
    ['--runtime kata', /must be "crun" or "runc"/],
    ['--security-opt colour=red', /is unknown; known are apparmor/],
    ['--security-opt label=colour:red', /must be label=user:USER/],
    ['--security-opt seccomp=absent.json', /^security-opt: seccomp: the profile is no JSON/],
    ['--isolation hyperv', /is of Windows/],
    ['--credential-spec file://x', /is of Windows/],
    ['--tmpfs run', /absolute path/],
    ['--tmpfs /run:size=big', /size "big" must be a size/],
  ];
  for (const [argv, message] of cases) assert.throws(() => created(...words(argv)), { message }, argv);
});

test('devices of vendors have names, and GPUs are such', () => {
  const names = (...texts: readonly string[]) =>
    texts.flatMap((text) => parseGpus(text)).map(({ pathOnHost }) => pathOnHost);

  assert.deepEqual(parseDevice('vendor.com/net-card=card_0:1'), {
    pathOnHost: 'vendor.com/net-card=card_0:1',
    pathInContainer: 'vendor.com/net-card=card_0:1',
    permissions: '',
  });
  assert.deepEqual(names('all', '2'), ['nvidia.com/gpu=all', 'nvidia.com/gpu=0', 'nvidia.com/gpu=1']);
  assert.deepEqual(names('"device=3,GPU-1"'), ['nvidia.com/gpu=3', 'nvidia.com/gpu=GPU-1']);
  for (const text of ['0', 'some', 'device=', 'driver=nvidia', '-1'])
    assert.throws(() => parseGpus(text), /must be "all", a number from 1, or device=NAME/, text);
  for (const text of ['vendor.com/gpu', 'vendor.com/gpu=', 'fuse'])
    assert.throws(() => parseDevice(text), /or vendor\.com\/class=name/, text);
});
