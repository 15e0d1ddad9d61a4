// What `info` shows, in Docker's words and field names. Pure.

import { parseHostPort } from '../../core/addresses.ts';
import type { Cluster } from '../../core/generated/objects.ts';
import type { InfoResponse } from '../../proto/generated/node.ts';
import { formatBinarySize, formatElapsed } from '../output/human.ts';
import { formatTime, toNanos } from './time.ts';

/** What only a manager knows. */
export interface ClusterFacts {
  readonly cluster: Cluster;
  readonly nodes: number;
  readonly managers: number;
  /** PEM. */
  readonly root: string;
  readonly isRootRotating: boolean;
}

export function infoLines(info: InfoResponse, facts: ClusterFacts | undefined): string[] {
  const { description } = info;
  return [
    `Containers: ${info.containersRunning + info.containersStopped}`,
    ` Running: ${info.containersRunning}`,
    ` Stopped: ${info.containersStopped}`,
    `Images: ${info.images}`,
    `Server Version: ${info.version}`,
    'Logging Driver: json-file',
    `Cgroup Version: ${info.cgroupVersion}`,
    ...swarmLines(info, facts),
    `Runtime: ${info.runtimeName}`,
    `containerd version: ${info.containerdVersion}`,
    `Kernel Version: ${description.kernel}`,
    `Operating System: ${description.operatingSystem}`,
    `OSType: ${description.platform.os}`,
    `Architecture: ${description.platform.architecture}`,
    `CPUs: ${description.resources.cpuNanos / 1e9}`,
    `Total Memory: ${formatBinarySize(description.resources.memoryBytes)}`,
    `Name: ${description.hostname}`,
    `Data Root: ${info.dataRoot}`,
    `Metrics Address: ${info.metricsAddress}`,
    ...labelLines(description.engineLabels),
  ];
}

function swarmLines(info: InfoResponse, facts: ClusterFacts | undefined): string[] {
  const lines = [`Swarm: ${info.state}`];
  if (info.error !== '') lines.push(` Error: ${info.error}`);
  if (info.nodeId === '' || info.state === 'locked') return lines;
  lines.push(` NodeID: ${info.nodeId}`, ` Is Manager: ${info.manager}`, ` ClusterID: ${info.clusterId}`);
  if (facts !== undefined) lines.push(...clusterLines(facts));
  if (info.manager && info.store !== '') lines.push(` Store: ${info.store}`);
  if (info.certificateExpiresAtMs > 0)
    lines.push(` Certificate Expires: ${formatTime(info.certificateExpiresAtMs)}`);
  lines.push(` Node Address: ${hostOf(info.advertiseAddress)}`);
  if (info.managers.length > 0)
    lines.push(' Manager Addresses:', ...info.managers.toSorted().map((address) => `  ${address}`));
  return lines;
}

function clusterLines({ cluster, nodes, managers, isRootRotating }: ClusterFacts): string[] {
  const { spec, network } = cluster;
  return [
    ` Managers: ${managers}`,
    ` Nodes: ${nodes}`,
    ` Default Address Pool: ${network.addressPools.join('  ')}`,
    ` SubnetSize: ${network.addressPoolMaskLength}`,
    ` Data Path Port: ${network.dataPathPort}`,
    ' Orchestration:',
    `  Task History Retention Limit: ${spec.taskHistoryLimit}`,
    ' Raft:',
    `  Snapshot Interval: ${spec.snapshotInterval}`,
    `  Number of Old Snapshots to Retain: ${spec.maxSnapshots}`,
    ' Dispatcher:',
    `  Heartbeat Period: ${formatElapsed(spec.heartbeatPeriodMs)}`,
    ' CA Configuration:',
    `  Expiry Duration: ${formatElapsed(spec.certificateLifeMs)}`,
    ...externalCaLines(spec.externalCas),
    ` Autolock Managers: ${spec.autolock}`,
    ` Root Rotation In Progress: ${isRootRotating}`,
    ...ownSettingLines(spec),
  ];
}

/** What Docker's swarms have not; nothing of what is off. */
function ownSettingLines(spec: Cluster['spec']): string[] {
  const { deadManagerAfterMs, departedNodeAfterMs, acceptExpiredUntilMs } = spec;
  return [
    ...(deadManagerAfterMs > 0 ? [` Dead Managers Removed After: ${formatElapsed(deadManagerAfterMs)}`] : []),
    ...(departedNodeAfterMs > 0
      ? [` Departed Nodes Removed After: ${formatElapsed(departedNodeAfterMs)}`]
      : []),
    ...(acceptExpiredUntilMs > 0
      ? [` Expired Certificates Renewed Until: ${formatTime(acceptExpiredUntilMs)}`]
      : []),
  ];
}

function externalCaLines(authorities: Cluster['spec']['externalCas']): string[] {
  if (authorities.length === 0) return [];
  return ['  External CAs:', ...authorities.map(({ protocol, url }) => `    ${protocol}: ${url}`)];
}

/** Docker shows no port here. */
function hostOf(address: string): string {
  return address === '' ? '' : parseHostPort(address, 'address').host;
}

function labelLines(labels: Readonly<Record<string, string>>): string[] {
  const entries = Object.entries(labels);
  return entries.length === 0 ? [] : ['Labels:', ...entries.map(([key, value]) => ` ${key}=${value}`)];
}

export function infoObject(info: InfoResponse, facts: ClusterFacts | undefined): object {
  const { description } = info;
  return {
    Containers: info.containersRunning + info.containersStopped,
    ContainersRunning: info.containersRunning,
    ContainersStopped: info.containersStopped,
    Images: info.images,
    LoggingDriver: 'json-file',
    CgroupVersion: info.cgroupVersion,
    KernelVersion: description.kernel,
    OperatingSystem: description.operatingSystem,
    OSType: description.platform.os,
    Architecture: description.platform.architecture,
    NCPU: description.resources.cpuNanos / 1e9,
    MemTotal: description.resources.memoryBytes,
    DockerRootDir: info.dataRoot,
    Name: description.hostname,
    Labels: Object.entries(description.engineLabels).map(([key, value]) => `${key}=${value}`),
    ServerVersion: info.version,
    DefaultRuntime: info.runtimeName,
    ContainerdVersion: info.containerdVersion,
    MetricsAddress: info.metricsAddress,
    Store: info.store,
    Swarm: {
      NodeID: info.nodeId,
      NodeAddr: hostOf(info.advertiseAddress),
      LocalNodeState: info.state,
      ControlAvailable: info.manager,
      Error: info.error,
      RemoteManagers: info.managers.map((address) => ({ Addr: address })),
      Nodes: facts?.nodes ?? 0,
      Managers: facts?.managers ?? 0,
      Cluster: clusterObject(info, facts),
    },
    Warnings: info.warnings,
  };
}

function clusterObject(info: InfoResponse, facts: ClusterFacts | undefined): object | null {
  if (facts === undefined) return info.clusterId === '' ? null : { ID: info.clusterId };
  const { meta, spec, network } = facts.cluster;
  return {
    ID: info.clusterId,
    Version: { Index: meta.version },
    CreatedAt: formatTime(meta.createdAtMs),
    UpdatedAt: formatTime(meta.updatedAtMs),
    Spec: {
      Name: spec.name,
      Labels: spec.labels,
      Orchestration: { TaskHistoryRetentionLimit: spec.taskHistoryLimit },
      Raft: { SnapshotInterval: spec.snapshotInterval, KeepOldSnapshots: spec.maxSnapshots },
      Dispatcher: { HeartbeatPeriod: toNanos(spec.heartbeatPeriodMs) },
      CAConfig: {
        NodeCertExpiry: toNanos(spec.certificateLifeMs),
        ...(spec.externalCas.length > 0 && {
          ExternalCAs: spec.externalCas.map(({ protocol, url, options, caCertificate }) => ({
            Protocol: protocol,
            URL: url,
            Options: options,
            CACert: caCertificate,
          })),
        }),
      },
      EncryptionConfig: { AutoLockManagers: spec.autolock },
    },
    TLSInfo: { TrustRoot: facts.root },
    RootRotationInProgress: facts.isRootRotating,
    DefaultAddrPool: network.addressPools,
    SubnetSize: network.addressPoolMaskLength,
    DataPathPort: network.dataPathPort,
  };
}
