// A task in Docker's field names, as JSON, and which versions of secrets and configs it has. Pure.

import type { PortConfig } from '../../core/generated/objects.ts';
import type { FoundTask } from '../tasks/find-task.ts';
import { filesOf, type TaskFileVersion } from '../tasks/task-list.ts';
import { taskTemplate } from './service-shape.ts';
import { formatTime } from './time.ts';

export function toDockerTask({ task, spec }: FoundTask): object {
  const { status, meta, attachments } = task;
  const { container } = status;
  const { secrets, configs } = filesOf(task, spec);
  return {
    ID: task.id,
    Version: { Index: meta.version },
    CreatedAt: formatTime(meta.createdAtMs),
    UpdatedAt: formatTime(meta.updatedAtMs),
    ...(spec && { Labels: spec.task.container.labels, Spec: taskTemplate(spec.task) }),
    ServiceID: task.serviceId,
    Slot: task.slot,
    NodeID: task.nodeId,
    Status: {
      Timestamp: formatTime(status.timestampMs),
      State: status.state,
      Message: status.message,
      ...(status.error !== '' && { Err: status.error }),
      ...(container && {
        ContainerStatus: {
          ContainerID: task.id,
          PID: container.pid,
          ExitCode: container.exitCode,
        },
      }),
      PortStatus: status.ports.length > 0 ? { Ports: status.ports.map(port) } : {},
    },
    DesiredState: task.desiredState,
    ...(attachments.length > 0 && {
      NetworksAttachments: attachments.map(({ networkId, addresses }) => ({
        Network: { ID: networkId },
        Addresses: addresses,
      })),
    }),
    ...(secrets.length > 0 && { Secrets: secrets.map((file) => version('Secret', file)) }),
    ...(configs.length > 0 && { Configs: configs.map((file) => version('Config', file)) }),
  };
}

function version(kind: 'Secret' | 'Config', { id, name, target, version }: TaskFileVersion): object {
  return { [`${kind}ID`]: id, [`${kind}Name`]: name, Target: target, Version: version };
}

function port({ protocol, targetPort, publishedPort, publishMode }: PortConfig): object {
  return {
    Protocol: protocol,
    TargetPort: targetPort,
    PublishedPort: publishedPort,
    PublishMode: publishMode,
  };
}
