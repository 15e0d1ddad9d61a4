// The container of a service in `service inspect --pretty`. Pure.

import type {
  ContainerSpec,
  FileReference,
  Mount,
  SecurityOptions,
  TaskSpec,
} from '../../core/generated/objects.ts';
import { formatBinarySize, formatGoDuration } from '../output/human.ts';

export function containerLines({ container, logDriver }: TaskSpec): string[] {
  return [
    'ContainerSpec:',
    ` Image:\t\t${container.image}`,
    ...field('Command', container.command.join(' ')),
    ...field('Args', container.args.join(' ')),
    ...field('Init', container.init === undefined ? '' : String(container.init)),
    ...field('Env', container.env.join(' ')),
    ...field('Dir', container.workdir),
    ...field('User', container.user),
    ...field('Groups', container.groups.join(' ')),
    ...field('Hostname', container.hostname),
    ...field('StopSignal', container.stopSignal),
    ...(container.stopGracePeriodMs === undefined
      ? []
      : field('StopGracePeriod', formatGoDuration(container.stopGracePeriodMs))),
    ...field('Healthcheck', container.healthCheck?.test.join(' ') ?? ''),
    ...field('ReadOnly', container.readOnly ? 'true' : ''),
    ...field('TTY', container.tty ? 'true' : ''),
    ...field('Interactive', container.openStdin ? 'true' : ''),
    ...optionLines(container),
    ...(container.mounts.length === 0 ? [] : ['Mounts:']),
    ...container.mounts.flatMap(mountLines),
    ...fileLines('Secrets', container.secrets),
    ...fileLines('Configs', container.configs),
    ...(logDriver === undefined
      ? []
      : [
          'Log Driver:',
          ` Name:\t\t${logDriver.name}`,
          ...Object.entries(logDriver.options).map(([key, value]) => ` ${key}:\t${value}`),
        ]),
  ];
}

function optionLines(container: ContainerSpec): string[] {
  const { dns, security, shmSizeBytes } = container;
  return [
    ...field('Hosts', container.hosts.join(', ')),
    ...field('DNS', dns?.nameServers.join(' ') ?? ''),
    ...field('DNSSearch', dns?.search.join(' ') ?? ''),
    ...field('DNSOptions', dns?.options.join(' ') ?? ''),
    ...field('Sysctls', settings(container.sysctls)),
    ...field('Ulimits', container.ulimits.map(({ name, soft, hard }) => `${name}=${soft}:${hard}`).join(' ')),
    ...field('CapabilityAdd', container.capabilitiesAdded.join(' ')),
    ...field('CapabilityDrop', container.capabilitiesDropped.join(' ')),
    ...field('Privileged', container.privileged ? 'true' : ''),
    ...field('SecurityOpt', security === undefined ? '' : securityWords(security).join(' ')),
    ...field('OomScoreAdj', container.oomScoreAdj === 0 ? '' : String(container.oomScoreAdj)),
    ...field(
      'Devices',
      container.devices
        .map(
          ({ pathOnHost, pathInContainer, permissions }) => `${pathOnHost}:${pathInContainer}:${permissions}`,
        )
        .join(' '),
    ),
    ...field('DeviceCgroupRules', container.deviceCgroupRules.join(', ')),
    ...field('PidMode', container.pidMode),
    ...field('IpcMode', container.ipcMode),
    ...field('UTSMode', container.utsMode),
    ...field('UsernsMode', container.usernsMode),
    ...field('CgroupnsMode', container.cgroupnsMode),
    ...field('CgroupParent', container.cgroupParent),
    ...field('ShmSize', shmSizeBytes === 0 ? '' : formatBinarySize(shmSizeBytes)),
    ...field('Runtime', container.runtime),
    ...field('Annotations', settings(container.annotations)),
  ];
}

function field(title: string, value: string): string[] {
  return value === '' ? [] : [` ${title}:\t\t${value}`];
}

function settings(map: Readonly<Record<string, string>>): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ');
}

function securityWords({
  noNewPrivileges,
  seccomp,
  appArmor,
  seLinux,
  systemPathsUnconfined,
}: SecurityOptions) {
  const isCustom = seccomp !== '' && seccomp !== 'unconfined';
  const parts = ['user', 'role', 'type', 'level'] as const;
  const label = parts.filter((part) => seLinux?.[part]).map((part) => `label=${part}:${seLinux?.[part]}`);
  return [
    ...(noNewPrivileges ? ['no-new-privileges'] : []),
    ...(seccomp === '' ? [] : [`seccomp=${isCustom ? 'custom' : seccomp}`]),
    ...(appArmor === '' ? [] : [`apparmor=${appArmor}`]),
    ...(seLinux?.disabled ? ['label=disable'] : label),
    ...(systemPathsUnconfined ? ['systempaths=unconfined'] : []),
  ];
}

function mountLines(mount: Mount): string[] {
  return [
    ` Target:\t${mount.target}`,
    ...(mount.source === '' ? [] : [`  Source:\t${mount.source}`]),
    ...(mount.subpath === '' ? [] : [`  Subpath:\t${mount.subpath}`]),
    `  ReadOnly:\t${mount.readOnly}`,
    `  Type:\t\t${mount.type}`,
  ];
}

function fileLines(title: string, references: readonly FileReference[]): string[] {
  if (references.length === 0) return [];
  return [
    `${title}:`,
    ...references.flatMap(({ sourceName, target, version }) => [
      ` Target:\t${target}`,
      `  Source:\t${sourceName}${version > 0 ? `, version ${version}` : ''}`,
    ]),
  ];
}
