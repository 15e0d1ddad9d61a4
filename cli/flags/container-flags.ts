// Flags of `service create` and `service update` about the container itself: names and resolvers, limits, capabilities,
// namespaces, devices, security. What Docker has for `run` only has run's names.

import {
  parseCapabilityChange,
  parseDevice,
  parseGpus,
  parseHost,
  parseSecurityKey,
  parseSecurityWord,
  parseSetting,
  parseSwap,
  parseTmpfs,
  parseUlimit,
} from './container-values.ts';
import {
  bytesFlag,
  countFlag,
  integerFlag,
  listFlag,
  switchFlag,
  textFlag,
  valueFlag,
  valuesFlag,
} from './flag.ts';
import { oneOf } from './units.ts';

/** An empty value goes back to what is usual. */
function modeFlag<const T extends string>(help: string, choices: readonly T[]) {
  const parse = oneOf(...choices);
  const parseOrEmpty = (text: string): T | '' => (text === '' ? '' : parse(text));
  return valueFlag('string', parseOrEmpty, `${help} ("${choices.join('", "')}")`, { choices });
}

function parseIsolation(text: string): string {
  if (text !== 'default') throw new Error('is of Windows: only "default" is known here');
  return text;
}

function refuseCredentialSpec(): never {
  throw new Error('is of Windows, whose containers are not supported');
}

export const containerScalarFlags = {
  'cap-add': valuesFlag(
    'list',
    parseCapabilityChange,
    'Add Linux capabilities ("ALL" adds all, "RESET" forgets)',
  ),
  'cap-drop': valuesFlag(
    'list',
    parseCapabilityChange,
    'Drop Linux capabilities ("ALL" drops all, "RESET" forgets)',
  ),
  'credential-spec': valueFlag(
    'string',
    refuseCredentialSpec,
    'Credential spec for managed service account (Windows only: refused)',
  ),
  init: switchFlag('Use an init inside each service container to forward signals and reap processes'),
  isolation: valueFlag('string', parseIsolation, 'Service container isolation mode ("default")'),
  'memory-swap': valueFlag('bytes', parseSwap, 'Swap Bytes beside the limit of memory (-1 for unlimited)'),
  'memory-swappiness': integerFlag('Tune memory swappiness (0-100), -1 to reset to default'),
  'oom-score-adj': integerFlag("Tune host's OOM preferences (-1000 to 1000)"),
  'blkio-weight': countFlag('Block IO, relative weight (10 to 1000, 0 = as usual)'),
  'cgroup-parent': textFlag('Parent cgroup for the container'),
  cgroupns: modeFlag('Cgroup namespace to use', ['host', 'private']),
  'cpu-shares': countFlag('CPU shares, relative weight (2 to 262144, 0 = as usual)'),
  'cpuset-cpus': textFlag('CPUs in which to allow execution (0-3, 0,1)'),
  'cpuset-mems': textFlag('Memory nodes in which to allow execution (0-3, 0,1)'),
  ipc: modeFlag('IPC namespace to use', ['host', 'none', 'private', 'shareable']),
  pid: modeFlag('PID namespace to use', ['host', 'private']),
  privileged: switchFlag('Give extended privileges to the container'),
  runtime: modeFlag('OCI runtime to use', ['crun', 'runc']),
  'shm-size': bytesFlag('Size of /dev/shm (0 = 64m)'),
  userns: modeFlag('User namespace to use', ['host', 'private']),
  uts: modeFlag('UTS namespace to use', ['host', 'private']),
};

const DEVICE = '/dev/NAME[:PATH[:rwm]], or vendor.com/class=name';
const SECURITY = 'seccomp=FILE|unconfined, apparmor=, label=, no-new-privileges, systempaths=unconfined';

export const createContainerFlags = {
  annotation: valuesFlag('list', parseSetting, 'Add an annotation to the container, for the OCI runtime'),
  device: valuesFlag('list', parseDevice, `Add a device of the node to the container (${DEVICE})`),
  'device-cgroup-rule': listFlag('Add a rule to the cgroup allowed devices list ("c 1:3 rwm")'),
  dns: listFlag('Set custom DNS servers'),
  'dns-option': listFlag('Set DNS options'),
  'dns-search': listFlag('Set custom DNS search domains'),
  gpus: valuesFlag('gpu-request', parseGpus, 'GPU devices to add to the container ("all" to pass all GPUs)'),
  host: valuesFlag('list', parseHost, 'Set one or more custom host-to-IP mappings (host:ip)'),
  'security-opt': valuesFlag('list', parseSecurityWord, `Security options (${SECURITY})`),
  sysctl: valuesFlag('list', parseSetting, 'Sysctl options'),
  tmpfs: valuesFlag('list', parseTmpfs, 'Mount a tmpfs directory (PATH[:OPTIONS])'),
  ulimit: valuesFlag('ulimit', parseUlimit, 'Ulimit options (NAME=SOFT[:HARD])'),
};

export const updateContainerFlags = {
  'annotation-add': valuesFlag('list', parseSetting, 'Add or update an annotation'),
  'annotation-rm': listFlag('Remove an annotation by its key'),
  'device-add': valuesFlag('list', parseDevice, `Add or update a device (${DEVICE})`),
  'device-rm': listFlag('Remove a device by its path in the container'),
  'device-cgroup-rule-add': listFlag('Add a rule to the cgroup allowed devices list'),
  'device-cgroup-rule-rm': listFlag('Remove a rule from the cgroup allowed devices list'),
  'dns-add': listFlag('Add or update a custom DNS server'),
  'dns-rm': listFlag('Remove a custom DNS server'),
  'dns-option-add': listFlag('Add or update a DNS option'),
  'dns-option-rm': listFlag('Remove a DNS option'),
  'dns-search-add': listFlag('Add or update a custom DNS search domain'),
  'dns-search-rm': listFlag('Remove a DNS search domain'),
  'host-add': valuesFlag('list', parseHost, 'Add a custom host-to-IP mapping (host:ip)'),
  'host-rm': listFlag('Remove a custom host-to-IP mapping (host[:ip])'),
  'security-opt-add': valuesFlag('list', parseSecurityWord, `Add or update a security option (${SECURITY})`),
  'security-opt-rm': valuesFlag('list', parseSecurityKey, 'Remove a security option by its key'),
  'sysctl-add': valuesFlag('list', parseSetting, 'Add or update a Sysctl option'),
  'sysctl-rm': listFlag('Remove a Sysctl option'),
  'tmpfs-add': valuesFlag('list', parseTmpfs, 'Add or update a tmpfs mount (PATH[:OPTIONS])'),
  'tmpfs-rm': listFlag('Remove a tmpfs mount by its path'),
  'ulimit-add': valuesFlag('ulimit', parseUlimit, 'Add or update a ulimit option'),
  'ulimit-rm': listFlag('Remove a ulimit option by its name'),
};
