// What makes the options of a container acceptable: names, namespaces, security, devices, weights. Each refusal is
// `invalid-argument`, names the flag and says what would be right.

import { parseCapability } from './capabilities.ts';
import { isCdiName } from './cdi-name.ts';
import { invalidField, messageOf } from './errors.ts';
import type {
  ContainerSpec,
  DnsConfig,
  ResourceLimits,
  SecurityOptions,
  Ulimit,
} from './generated/objects.ts';
import { parseAddress } from './ip-address.ts';
import { parseSeccompProfile } from './seccomp-profile.ts';
import { requireLabels, requireWhole } from './validate-fields.ts';

/** The limits of a process that Docker knows, by the kernel's names without RLIMIT_. */
export const ULIMIT_NAMES: readonly string[] = [
  'core',
  'cpu',
  'data',
  'fsize',
  'locks',
  'memlock',
  'msgqueue',
  'nice',
  'nofile',
  'nproc',
  'rss',
  'rtprio',
  'rttime',
  'sigpending',
  'stack',
];
const IPC_SYSCTL =
  /^(kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+)$/;
const NET_SYSCTL = /^net\.[\w.\-/]+$/;
const OOM_SCORE_MAX = 1000;
const CPU_SHARES_MIN = 2;
const CPU_SHARES_MAX = 262_144;
const BLKIO_WEIGHT_MIN = 10;
const BLKIO_WEIGHT_MAX = 1000;
const SHM_BYTES_MIN = 4096;
// "0-3,8"
const CPU_LIST = /^\d+(-\d+)?(,\d+(-\d+)?)*$/;
/** "c 1:3 rwm", of whom "*" are all. */
export const DEVICE_RULE = /^([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})$/;

const MODES: readonly [
  flag: string,
  field: 'pidMode' | 'ipcMode' | 'utsMode' | 'usernsMode' | 'cgroupnsMode',
  string[],
][] = [
  ['pid', 'pidMode', ['host', 'private']],
  ['ipc', 'ipcMode', ['host', 'none', 'private', 'shareable']],
  ['uts', 'utsMode', ['host', 'private']],
  ['userns', 'usernsMode', ['host', 'private']],
  ['cgroupns', 'cgroupnsMode', ['host', 'private']],
];

/** `isHostNetwork`: it is in the node's own network. */
export function validateContainerOptions(container: ContainerSpec, isHostNetwork: boolean): void {
  container.hosts.forEach(validateHost);
  if (container.dns !== undefined) validateDns(container.dns);
  container.ulimits.forEach(validateUlimit);
  validateCapabilities('cap-add', container.capabilitiesAdded);
  validateCapabilities('cap-drop', container.capabilitiesDropped);
  const { oomScoreAdj, shmSizeBytes } = container;
  if (!Number.isInteger(oomScoreAdj) || Math.abs(oomScoreAdj) > OOM_SCORE_MAX)
    throw invalidField('oom-score-adj', `${oomScoreAdj} must be from -1000 to 1000`);
  requireWhole('shm-size', shmSizeBytes);
  if (shmSizeBytes > 0 && shmSizeBytes < SHM_BYTES_MIN)
    throw invalidField('shm-size', `${shmSizeBytes} bytes is less than a page of memory`);
  validateModes(container);
  if (container.usernsMode === 'private') validateOwnUsers(container, isHostNetwork);
  validateSysctls(container, isHostNetwork);
  validateDevices(container);
  const { cgroupParent, runtime, annotations, security } = container;
  if (cgroupParent !== '' && (!/^[\w./-]+$/.test(cgroupParent) || cgroupParent.split('/').includes('..')))
    throw invalidField('cgroup-parent', `"${cgroupParent}" must be the path of a cgroup, without ".."`);
  if (cgroupParent.endsWith('.slice'))
    throw invalidField(
      'cgroup-parent',
      `"${cgroupParent}" is a slice of systemd: a path such as /batch is meant`,
    );
  if (!['', 'crun', 'runc'].includes(runtime))
    throw invalidField('runtime', `"${runtime}" must be "crun" or "runc"`);
  requireLabels('annotation', annotations);
  if (security !== undefined) validateSecurity(security);
}

function validateHost(line: string): void {
  const [address = '', ...names] = line.split(/\s+/);
  if (parseAddress(address) === undefined)
    throw invalidField('host', `"${address}" must be an IP address: NAME:ADDRESS`);
  if (names.length === 0 || names.some((name) => !/^[\w.-]{1,253}$/.test(name)))
    throw invalidField('host', `"${names.join(' ')}" must be a host name: NAME:ADDRESS`);
}

function validateDns({ nameServers, search, options }: DnsConfig): void {
  for (const server of nameServers)
    if (parseAddress(server) === undefined) throw invalidField('dns', `"${server}" must be an IP address`);
  for (const domain of search)
    if (domain !== '.' && !/^(?=.{1,253}$)[\w-]+(\.[\w-]+)*\.?$/.test(domain))
      throw invalidField('dns-search', `"${domain}" must be a domain such as example.com`);
  for (const option of options)
    if (!/^[\w:-]+$/.test(option))
      throw invalidField('dns-option', `"${option}" must be a word such as ndots:2`);
}

function validateUlimit({ name, soft, hard }: Ulimit): void {
  if (!ULIMIT_NAMES.includes(name))
    throw invalidField('ulimit', `"${name}" is unknown; known are ${ULIMIT_NAMES.join(', ')}`);
  for (const value of [soft, hard])
    if (!Number.isSafeInteger(value) || value < -1)
      throw invalidField('ulimit', `${name}: ${value} must be a whole number, or -1 for no limit`);
  if (hard !== -1 && (soft === -1 || soft > hard))
    throw invalidField('ulimit', `${name}: the soft limit ${soft} must not be above the hard limit ${hard}`);
}

function validateCapabilities(field: string, names: readonly string[]): void {
  for (const name of names)
    if (parseCapability(name) !== name)
      throw invalidField(field, `"${name}" must be a capability such as CAP_NET_ADMIN, or ALL`);
}

function validateModes(container: ContainerSpec): void {
  for (const [flag, field, choices] of MODES) {
    const mode = container[field];
    if (mode !== '' && !choices.includes(mode))
      throw invalidField(flag, `"${mode}" must be ${choices.map((choice) => `"${choice}"`).join(' or ')}`);
  }
  if (container.utsMode === 'host' && container.hostname !== '')
    throw invalidField('hostname', "conflicts with uts=host: the name is the node's");
}

/** A container with users of its own has no rights over what is the node's. */
function validateOwnUsers({ privileged, pidMode }: ContainerSpec, isHostNetwork: boolean): void {
  const conflicts: readonly [string, boolean][] = [
    ['privileged', privileged],
    ['pid=host', pidMode === 'host'],
    ['the network host', isHostNetwork],
  ];
  for (const [what, applies] of conflicts)
    if (applies) throw invalidField('userns', `"private" conflicts with ${what}: "host" is meant`);
}

function validateSysctls({ sysctls, ipcMode }: ContainerSpec, isHostNetwork: boolean): void {
  for (const [name, value] of Object.entries(sysctls)) {
    const isIpc = IPC_SYSCTL.test(name);
    if ((!isIpc && !NET_SYSCTL.test(name)) || name.includes('..'))
      throw invalidField(
        'sysctl',
        `"${name}" is not of a namespace: net.*, fs.mqueue.* and kernel.{sem,shm*,msg*} are`,
      );
    if (isIpc && ipcMode === 'host')
      throw invalidField('sysctl', `"${name}" would be the node's, with ipc=host`);
    if (!isIpc && isHostNetwork)
      throw invalidField('sysctl', `"${name}" would be the node's, with the network host`);
    if (/[\0\n]/.test(value)) throw invalidField('sysctl', `${name}: the value must be one line`);
  }
}

function validateDevices({ devices, deviceCgroupRules }: ContainerSpec): void {
  for (const { pathOnHost, pathInContainer, permissions } of devices) {
    if (isCdiName(pathOnHost) && pathInContainer === pathOnHost && permissions === '') continue;
    if (!pathOnHost.startsWith('/') || !pathInContainer.startsWith('/') || pathInContainer.includes('/../'))
      throw invalidField(
        'device',
        `"${pathOnHost}:${pathInContainer}" must be absolute paths, or a name as vendor.com/class=name`,
      );
    if (!/^[rwm]{1,3}$/.test(permissions) || new Set(permissions).size !== permissions.length)
      throw invalidField('device', `${pathOnHost}: permissions "${permissions}" must be of r, w and m`);
  }
  for (const rule of deviceCgroupRules)
    if (!DEVICE_RULE.test(rule))
      throw invalidField(
        'device-cgroup-rule',
        `"${rule}" must be TYPE MAJOR:MINOR ACCESS such as "c 1:3 rwm"`,
      );
}

function validateSecurity({ seccomp, appArmor, seLinux }: SecurityOptions): void {
  if (seccomp !== '' && seccomp !== 'unconfined') {
    try {
      parseSeccompProfile(seccomp);
    } catch (error) {
      throw invalidField('security-opt', `seccomp: ${messageOf(error)}`);
    }
  }
  if (!/^[\w./:+@-]*$/.test(appArmor))
    throw invalidField('security-opt', `apparmor="${appArmor}" must be the name of a profile`);
  if (seLinux === undefined) return;
  const parts = [seLinux.user, seLinux.role, seLinux.type];
  if (parts.some((part) => !/^\w*$/.test(part)) || !/^[\w:,.-]*$/.test(seLinux.level))
    throw invalidField(
      'security-opt',
      'label must be user:USER, role:ROLE, type:TYPE, level:LEVEL or disable',
    );
}

/** The limits beyond processors, memory and processes. */
export function validateWeights(limits: ResourceLimits): void {
  const { swapBytes, memorySwappiness, cpuShares, blkioWeight } = limits;
  if (swapBytes !== undefined) {
    if (!Number.isSafeInteger(swapBytes) || swapBytes < -1)
      throw invalidField('memory-swap', `${swapBytes} must be a size, or -1 for any amount`);
    if (limits.memoryBytes === 0) throw invalidField('memory-swap', 'needs limit-memory');
  }
  if (memorySwappiness !== undefined && !(memorySwappiness >= 0 && memorySwappiness <= 100))
    throw invalidField('memory-swappiness', `${memorySwappiness} must be from 0 to 100`);
  requireWithin('cpu-shares', cpuShares, CPU_SHARES_MIN, CPU_SHARES_MAX);
  requireWithin('blkio-weight', blkioWeight, BLKIO_WEIGHT_MIN, BLKIO_WEIGHT_MAX);
  for (const [field, list] of [
    ['cpuset-cpus', limits.cpusetCpus],
    ['cpuset-mems', limits.cpusetMems],
  ] as const)
    if (list !== '' && !CPU_LIST.test(list))
      throw invalidField(field, `"${list}" must be a list such as 0-3,8`);
}

function requireWithin(field: string, value: number, min: number, max: number): void {
  if (value !== 0 && !(Number.isInteger(value) && value >= min && value <= max))
    throw invalidField(field, `${value} must be from ${min} to ${max}`);
}
