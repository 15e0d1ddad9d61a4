// A node in Docker's field names. Pure.

import type { Node } from '../../core/generated/objects.ts';
import { capitalize, formatBinarySize } from '../output/human.ts';
import { type ClusterRoots, tlsInfo, tlsStatus } from './node-trust.ts';
import { genericShape } from './service-shape.ts';
import { formatTime } from './time.ts';

export function toDockerNode(node: Node, roots: ClusterRoots): object {
  const { description, managerStatus } = node;
  const tls = tlsInfo(node, roots);
  return {
    ID: node.id,
    Version: { Index: node.meta.version },
    CreatedAt: formatTime(node.meta.createdAtMs),
    UpdatedAt: formatTime(node.meta.updatedAtMs),
    Spec: {
      ...(node.spec.name !== '' && { Name: node.spec.name }),
      Labels: node.spec.labels,
      Role: node.spec.desiredRole,
      Availability: node.spec.availability,
    },
    Description: {
      Hostname: description.hostname,
      Platform: { Architecture: description.platform.architecture, OS: description.platform.os },
      Resources: {
        NanoCPUs: description.resources.cpuNanos,
        MemoryBytes: description.resources.memoryBytes,
        ...(description.genericResources.length > 0 && {
          GenericResources: description.genericResources.flatMap(genericShape),
        }),
      },
      Engine: {
        EngineVersion: description.engineVersion,
        ...(Object.keys(description.engineLabels).length > 0 && { Labels: description.engineLabels }),
      },
      ...(tls && { TLSInfo: tls }),
    },
    Status: {
      State: node.status.state,
      ...(node.status.message !== '' && { Message: node.status.message }),
      Addr: node.status.address,
      ...(node.status.sinceMs !== 0 && { Since: formatTime(node.status.sinceMs) }),
      ...(node.status.held && { Held: true }),
    },
    ...(node.spec.availability === 'drain' && { Drain: drainShape(node) }),
    ...(node.roleMessage !== '' && { RoleMessage: node.roleMessage }),
    ...(managerStatus && {
      ManagerStatus: {
        ...(managerStatus.leader && { Leader: true }),
        Reachability: managerStatus.reachable ? 'reachable' : 'unreachable',
        Addr: managerStatus.address,
      },
    }),
  };
}

function drainShape({ spec, drainStartedAtMs = 0 }: Node): object {
  return {
    Rate: spec.drainRate ?? 0,
    Deadline: (spec.drainDeadlineMs ?? 0) * 1e6,
    ...(drainStartedAtMs !== 0 && { StartedAt: formatTime(drainStartedAtMs) }),
  };
}

export function prettyNode(node: Node, roots: ClusterRoots, nowMs: number): string {
  const { description, managerStatus } = node;
  const lines = [
    `ID:\t\t\t${node.id}`,
    ...labelLines('Labels', node.spec.labels),
    `Hostname:              \t${description.hostname}`,
    `Joined at:             \t${formatTime(node.meta.createdAtMs)}`,
    'Status:',
    ` State:\t\t\t${capitalize(node.status.state)}`,
    ...(node.status.message === '' ? [] : [` Message:              \t${node.status.message}`]),
    ` Availability:         \t${capitalize(node.spec.availability)}`,
    ` Address:\t\t${node.status.address}`,
    ...roleLines(node),
  ];
  if (managerStatus !== undefined)
    lines.push(
      'Manager Status:',
      ` Address:\t\t${managerStatus.address}`,
      ` Reachability:\t\t${managerStatus.reachable ? 'Reachable' : 'Unreachable'}`,
      ` Leader:\t\t${managerStatus.leader ? 'Yes' : 'No'}`,
    );
  lines.push(
    'Platform:',
    ` Operating System:\t${description.platform.os}`,
    ` Architecture:\t\t${description.platform.architecture}`,
    'Resources:',
    ` CPUs:\t\t\t${description.resources.cpuNanos / 1e9}`,
    ` Memory:\t\t${formatBinarySize(description.resources.memoryBytes)}`,
    ...description.genericResources.map(
      ({ kind, count, names }) => ` ${kind}:\t\t\t${names.length > 0 ? names.join(', ') : count}`,
    ),
    `Engine Version:\t\t${description.engineVersion}`,
    ...labelLines('Engine Labels', description.engineLabels),
    ...tlsLines(node, roots, nowMs),
  );
  return `${lines.join('\n')}\n`;
}

/** Nothing while the node is what it shall be. */
function roleLines({ role, roleMessage, spec: { desiredRole } }: Node): string[] {
  if (role === desiredRole) return [];
  const reason = roleMessage === '' ? '' : ` (${roleMessage})`;
  return [` Role:\t\t\t${capitalize(role)}, to become ${desiredRole}${reason}`];
}

function tlsLines(node: Node, roots: ClusterRoots, nowMs: number): string[] {
  const info = tlsInfo(node, roots);
  const { expiresAtMs } = node.description.trust;
  return [
    'TLS Info:',
    ` Status:\t\t${tlsStatus(node, roots, nowMs)}`,
    ...(expiresAtMs === 0 ? [] : [` Certificate Expires:\t${formatTime(expiresAtMs)}`]),
    ...(info === undefined
      ? []
      : [
          ' TrustRoot:',
          info.TrustRoot,
          ` Issuer Subject:\t${info.CertIssuerSubject}`,
          ` Issuer Public Key:\t${info.CertIssuerPublicKey}`,
        ]),
  ];
}

function labelLines(title: string, labels: Readonly<Record<string, string>>): string[] {
  const entries = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return entries.length === 0 ? [] : [`${title}:`, ...entries.map(([key, value]) => ` - ${key}=${value}`)];
}
