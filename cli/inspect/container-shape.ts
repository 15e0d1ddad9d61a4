// The container of a service in Docker's field names, as JSON. What Docker gives to containers only has the names that it
// has there. Pure.

import type {
  ContainerSpec,
  DnsConfig,
  FileReference,
  HealthCheck,
  Mount,
  SecurityOptions,
} from '../../core/generated/objects.ts';
import { toNanos } from './time.ts';

export function containerSpec(container: ContainerSpec): object {
  const { dns, init, security } = container;
  return {
    Image: container.image,
    ...entries('Labels', container.labels),
    ...list('Command', container.command),
    ...list('Args', container.args),
    ...text('Hostname', container.hostname),
    ...list('Env', container.env),
    ...text('Dir', container.workdir),
    ...text('User', container.user),
    ...list('Groups', container.groups),
    ...(security && privileges(security)),
    ...(container.tty && { TTY: true }),
    ...(container.openStdin && { OpenStdin: true }),
    ...(container.readOnly && { ReadOnly: true }),
    ...list('Mounts', container.mounts.map(mount)),
    ...list(
      'Secrets',
      container.secrets.map((one) => file('Secret', one)),
    ),
    ...list(
      'Configs',
      container.configs.map((one) => file('Config', one)),
    ),
    ...text('StopSignal', container.stopSignal),
    ...(container.stopGracePeriodMs !== undefined && {
      StopGracePeriod: toNanos(container.stopGracePeriodMs),
    }),
    ...(container.healthCheck && { Healthcheck: healthCheck(container.healthCheck) }),
    ...list('Hosts', container.hosts),
    ...(dns && { DNSConfig: dnsConfig(dns) }),
    ...(init !== undefined && { Init: init }),
    ...(container.pullPolicy !== 'auto' && { PullPolicy: container.pullPolicy }),
    Isolation: 'default',
    ...entries('Sysctls', container.sysctls),
    ...list('CapabilityAdd', container.capabilitiesAdded),
    ...list('CapabilityDrop', container.capabilitiesDropped),
    ...list(
      'Ulimits',
      container.ulimits.map(({ name, hard, soft }) => ({ Name: name, Hard: hard, Soft: soft })),
    ),
    ...(container.oomScoreAdj !== 0 && { OomScoreAdj: container.oomScoreAdj }),
    ...optionsOfContainers(container),
  };
}

function optionsOfContainers(container: ContainerSpec): object {
  const { shmSizeBytes, security } = container;
  return {
    ...list(
      'Devices',
      container.devices.map(({ pathOnHost, pathInContainer, permissions }) => ({
        PathOnHost: pathOnHost,
        PathInContainer: pathInContainer,
        CgroupPermissions: permissions,
      })),
    ),
    ...list('DeviceCgroupRules', container.deviceCgroupRules),
    ...(container.privileged && { Privileged: true }),
    ...text('PidMode', container.pidMode),
    ...text('IpcMode', container.ipcMode),
    ...text('UTSMode', container.utsMode),
    ...text('UsernsMode', container.usernsMode),
    ...text('CgroupnsMode', container.cgroupnsMode),
    ...(shmSizeBytes > 0 && { ShmSize: shmSizeBytes }),
    ...text('CgroupParent', container.cgroupParent),
    ...text('Runtime', container.runtime),
    ...entries('Annotations', container.annotations),
    // An empty list is what Docker has for "unconfined".
    ...(security?.systemPathsUnconfined && { MaskedPaths: [], ReadonlyPaths: [] }),
  };
}

function privileges({ noNewPrivileges, seccomp, appArmor, seLinux }: SecurityOptions): object {
  const isCustom = seccomp !== '' && seccomp !== 'unconfined';
  const profile = isCustom && { Profile: Buffer.from(seccomp).toString('base64') };
  const label = seLinux && {
    Disable: seLinux.disabled,
    User: seLinux.user,
    Role: seLinux.role,
    Type: seLinux.type,
    Level: seLinux.level,
  };
  return {
    Privileges: {
      CredentialSpec: null,
      SELinuxContext: label ?? null,
      ...(seccomp !== '' && { Seccomp: { Mode: isCustom ? 'custom' : 'unconfined', ...profile } }),
      ...(appArmor === 'unconfined' && { AppArmor: { Mode: 'disabled' } }),
      ...(appArmor !== '' &&
        appArmor !== 'unconfined' && { AppArmor: { Mode: 'custom', Profile: appArmor } }),
      ...(noNewPrivileges && { NoNewPrivileges: true }),
    },
  };
}

function dnsConfig({ nameServers, search, options }: DnsConfig): object {
  return { ...list('Nameservers', nameServers), ...list('Search', search), ...list('Options', options) };
}

function healthCheck(check: HealthCheck): object {
  const time = (name: string, ms: number) => (ms > 0 ? { [name]: toNanos(ms) } : {});
  return {
    ...(check.test.length > 0 && { Test: check.test }),
    ...time('Interval', check.intervalMs),
    ...time('Timeout', check.timeoutMs),
    ...time('StartPeriod', check.startPeriodMs),
    ...time('StartInterval', check.startIntervalMs),
    ...(check.retries > 0 && { Retries: check.retries }),
  };
}

function mount(item: Mount): object {
  const bind = bindOptions(item);
  const volume = volumeOptions(item);
  const tmpfs = tmpfsOptions(item);
  const isEmpty = (options: object) => Object.keys(options).length === 0;
  return {
    Type: item.type,
    ...text('Source', item.source),
    Target: item.target,
    ...(item.readOnly && { ReadOnly: true }),
    ...(!isEmpty(bind) && { BindOptions: bind }),
    ...(!isEmpty(volume) && { VolumeOptions: volume }),
    ...(item.type === 'image' && item.subpath !== '' && { ImageOptions: { Subpath: item.subpath } }),
    ...(!isEmpty(tmpfs) && { TmpfsOptions: tmpfs }),
  };
}

function bindOptions({ bindPropagation, bindRecursive, bindCreateSource }: Mount): object {
  return {
    ...text('Propagation', bindPropagation),
    ...(bindRecursive === 'disabled' && { NonRecursive: true }),
    ...(bindRecursive === 'writable' && { ReadOnlyNonRecursive: true }),
    ...(bindRecursive === 'readonly' && { ReadOnlyForceRecursive: true }),
    ...(bindCreateSource && { CreateMountpoint: true }),
  };
}

function volumeOptions({ type, subpath, volumeNoCopy, volumeLabels, volumeDriver }: Mount): object {
  return {
    ...(volumeNoCopy && { NoCopy: true }),
    ...entries('Labels', volumeLabels),
    ...(volumeDriver && {
      DriverConfig: { Name: volumeDriver.name, ...entries('Options', volumeDriver.options) },
    }),
    ...(type === 'volume' && text('Subpath', subpath)),
  };
}

function tmpfsOptions({ tmpfsSizeBytes, tmpfsMode, tmpfsOptions: further }: Mount): object {
  return {
    ...(tmpfsSizeBytes > 0 && { SizeBytes: tmpfsSizeBytes }),
    ...(tmpfsMode > 0 && { Mode: tmpfsMode }),
    ...list(
      'Options',
      further.map((option) => option.split(/=(.*)/s, 2)),
    ),
  };
}

function list(name: string, values: readonly unknown[]): object {
  return values.length > 0 ? { [name]: values } : {};
}

function text(name: string, value: string): object {
  return value === '' ? {} : { [name]: value };
}

function entries(name: string, map: Readonly<Record<string, string>>): object {
  return Object.keys(map).length > 0 ? { [name]: map } : {};
}

/** `kind` is in the names of Docker's fields. */
function file(kind: 'Secret' | 'Config', reference: FileReference): object {
  const { sourceId, sourceName, target, uid, gid, mode, version, signal } = reference;
  return {
    File: { Name: target, UID: String(uid), GID: String(gid), Mode: mode },
    [`${kind}ID`]: sourceId,
    [`${kind}Name`]: sourceName,
    ...(version > 0 && { Version: version }),
    ...(signal !== '' && { Signal: signal }),
  };
}
