// `secret inspect` and `config inspect`.

import type { PayloadKind } from '../../core/validate-payload.ts';
import type { PayloadVersion } from '../../proto/generated/control.ts';
import { defineCommand } from '../command.ts';
import { inspectFlags } from '../flags/common-flags.ts';
import { inspectObjects } from '../inspect/inspect-objects.ts';
import { formatTime } from '../inspect/time.ts';
import { type FoundPayload, payloadCalls } from './calls.ts';

export function inspectCommand(kind: PayloadKind) {
  const word = kind.toUpperCase();
  return defineCommand({
    usage: `[OPTIONS] ${word} [${word}...]`,
    args: { min: 1, max: Number.POSITIVE_INFINITY },
    flags: inspectFlags,
    completes: kind,
    async run({ flags, args, io, connection }) {
      const calls = payloadCalls(await connection.control(), kind);
      return inspectObjects<FoundPayload>({
        names: args,
        find: (name) => calls.get(name),
        toShape: toDockerPayload,
        toText: prettyPayload,
        flags,
        io,
      });
    },
  });
}

/** In Docker's field names, as JSON. */
function toDockerPayload({ source, versions, usedBy, data }: FoundPayload): object {
  const { id, meta, spec, latestVersion } = source;
  return {
    ID: id,
    Version: { Index: meta.version },
    CreatedAt: formatTime(meta.createdAtMs),
    UpdatedAt: formatTime(meta.updatedAtMs),
    Spec: {
      Name: spec.name,
      Labels: spec.labels,
      ...(data && { Data: Buffer.from(data).toString('base64') }),
      ...(spec.templateDriver !== '' && { Templating: { Name: spec.templateDriver } }),
    },
    LatestVersion: latestVersion,
    Versions: versions.map((version) => ({
      Version: version.version,
      CreatedAt: formatTime(version.createdAtMs),
      Size: version.bytes,
      ...(version.pinnedBy.length > 0 && { PinnedBy: version.pinnedBy }),
      ...(version.tasks.length > 0 && { Tasks: version.tasks }),
    })),
    UsedBy: usedBy,
  };
}

function prettyPayload({ source, versions, usedBy, data }: FoundPayload): string {
  const { id, meta, spec } = source;
  const lines = [
    `ID:\t\t\t${id}`,
    `Name:\t\t\t${spec.name}`,
    ...Object.entries(spec.labels).map(
      ([key, value], index) => `${index === 0 ? 'Labels:\n' : ''} - ${key}=${value}`,
    ),
    ...(spec.templateDriver === '' ? [] : [`Template driver:\t${spec.templateDriver}`]),
    `Created at:\t\t${formatTime(meta.createdAtMs)}`,
    `Updated at:\t\t${formatTime(meta.updatedAtMs)}`,
    'Versions:',
    ...versions.map(versionLine),
    ...(usedBy.length > 0 ? [`Used by:\t\t${usedBy.join(', ')}`] : []),
    ...(data === undefined ? [] : ['Data:', Buffer.from(data).toString()]),
  ];
  return `${lines.join('\n')}\n`;
}

function versionLine({ version, createdAtMs, bytes, pinnedBy, tasks }: PayloadVersion): string {
  const pins = pinnedBy.length > 0 ? `, pinned by ${pinnedBy.join(', ')}` : '';
  const use = tasks.length > 0 ? `, in ${tasks.map((name) => name.replace(/\.\w+$/, '')).join(', ')}` : '';
  return ` ${version}\t\t\t${formatTime(createdAtMs)}, ${bytes} bytes${pins}${use}`;
}
