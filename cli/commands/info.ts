// `tsswarm info`: this node, its engine and its place in the cluster.

import { hasCode } from '../../core/errors.ts';
import type { InfoResponse } from '../../proto/generated/node.ts';
import { defineCommand } from '../command.ts';
import type { Connection } from '../connection.ts';
import { textFlag } from '../flags/flag.ts';
import { formatInspect } from '../format/inspect-format.ts';
import { formatBinarySize, formatGoDuration } from '../output/human.ts';

interface ClusterFacts {
  readonly nodes: number;
  readonly managers: number;
  readonly taskHistoryLimit: number;
  readonly heartbeatPeriodMs: number;
  readonly snapshotInterval: number;
}

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { format: textFlag('Format output: "json" or a Go TEMPLATE', { shorthand: 'f' }) },
  async run({ flags, io, connection }) {
    const info = await (await connection.node()).info({});
    const cluster = info.state === 'active' ? await clusterFacts(connection) : undefined;
    if (flags.format === undefined || flags.format === '') {
      await io.out(`${infoLines(info, cluster).join('\n')}\n`);
      for (const warning of info.warnings) io.err(`WARNING: ${warning}\n`);
    } else {
      const object = infoObject(info, cluster);
      await io.out(
        flags.format === 'json' ? `${JSON.stringify(object)}\n` : formatInspect([object], flags.format),
      );
    }
  },
});

async function clusterFacts(connection: Connection): Promise<ClusterFacts | undefined> {
  try {
    const { cluster, nodes, managers } = await (await connection.control()).getCluster(
      {},
      { timeoutMs: 5_000 },
    );
    return { nodes, managers, ...cluster.spec };
  } catch (error) {
    // The node's own facts are worth showing while its manager starts.
    if (hasCode(error, 'unavailable') || hasCode(error, 'deadline-exceeded')) return undefined;
    throw error;
  }
}

function infoLines(info: InfoResponse, cluster: ClusterFacts | undefined): string[] {
  const { description } = info;
  return [
    `Containers: ${info.containersRunning + info.containersStopped}`,
    ` Running: ${info.containersRunning}`,
    ` Stopped: ${info.containersStopped}`,
    `Images: ${info.images}`,
    `Server Version: ${info.version}`,
    'Logging Driver: json-file',
    `Cgroup Version: ${info.cgroupVersion}`,
    ...swarmLines(info, cluster),
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

function swarmLines(info: InfoResponse, cluster: ClusterFacts | undefined): string[] {
  const lines = [`Swarm: ${info.state}`];
  if (info.error !== '') lines.push(` Error: ${info.error}`);
  if (info.nodeId === '') return lines;
  lines.push(` NodeID: ${info.nodeId}`, ` Is Manager: ${info.manager}`, ` ClusterID: ${info.clusterId}`);
  if (cluster !== undefined)
    lines.push(
      ` Managers: ${cluster.managers}`,
      ` Nodes: ${cluster.nodes}`,
      ' Orchestration:',
      `  Task History Retention Limit: ${cluster.taskHistoryLimit}`,
      ' Raft:',
      `  Snapshot Interval: ${cluster.snapshotInterval}`,
      ' Dispatcher:',
      `  Heartbeat Period: ${formatGoDuration(cluster.heartbeatPeriodMs)}`,
    );
  if (info.store !== '') lines.push(` Store: ${info.store}`);
  lines.push(` Node Address: ${info.advertiseAddress}`);
  return lines;
}

function labelLines(labels: Readonly<Record<string, string>>): string[] {
  const entries = Object.entries(labels);
  return entries.length === 0 ? [] : ['Labels:', ...entries.map(([key, value]) => ` ${key}=${value}`)];
}

function infoObject(info: InfoResponse, cluster: ClusterFacts | undefined): object {
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
      NodeAddr: info.advertiseAddress,
      LocalNodeState: info.state,
      ControlAvailable: info.manager,
      Error: info.error,
      Nodes: cluster?.nodes ?? 0,
      Managers: cluster?.managers ?? 0,
      Cluster: info.clusterId === '' ? null : { ID: info.clusterId },
    },
    Warnings: info.warnings,
  };
}
