// An image in Docker's field names, and its history. What an image says of itself is read with doubt. Pure.

import type { InspectImageResponse } from '../../proto/generated/node.ts';

type Json = Readonly<Record<string, unknown>>;

/** As `docker image inspect` has it. */
export function toDockerImage({ summary, configuration, layers }: InspectImageResponse): object {
  const image = parseObject(configuration);
  const unpacked = layers.reduce((sum, { unpackedBytes }) => sum + unpackedBytes, 0);
  const history = asList(image['history']);
  return {
    Id: summary.id,
    RepoTags: summary.tags,
    RepoDigests: summary.digests,
    Comment: asText(asObject(history.at(-1))['comment']),
    Created: asText(image['created']),
    Author: asText(image['author']),
    Config: image['config'] ?? {},
    Architecture: asText(image['architecture']),
    ...(asText(image['variant']) !== '' && { Variant: asText(image['variant']) }),
    Os: asText(image['os']),
    Size: unpacked,
    RootFS: { Type: 'layers', Layers: asList(asObject(image['rootfs'])['diff_ids']) },
    Descriptor: { digest: summary.digest },
  };
}

export interface HistoryEntry {
  readonly createdAtMs: number;
  readonly createdBy: string;
  readonly comment: string;
  readonly sizeBytes: number;
  /** Of the image itself for the last entry; Docker knows no others of what came from elsewhere. */
  readonly id: string;
}

/** The newest first. Entries without a layer have no size. */
export function historyOf({ summary, configuration, layers }: InspectImageResponse): HistoryEntry[] {
  const entries = asList(parseObject(configuration)['history']).map(asObject);
  // An image may say nothing about how its layers came.
  const told = entries.length > 0 ? entries : layers.map((): Json => ({}));
  let layer = 0;
  const history = told.map((entry, position) => {
    const hasLayer = entry['empty_layer'] !== true;
    const sizeBytes = hasLayer ? (layers[layer]?.unpackedBytes ?? 0) : 0;
    if (hasLayer) layer += 1;
    const createdAtMs = Date.parse(asText(entry['created']));
    return {
      createdAtMs: Number.isNaN(createdAtMs) ? 0 : createdAtMs,
      createdBy: asText(entry['created_by']),
      comment: asText(entry['comment']),
      sizeBytes,
      id: position === told.length - 1 ? summary.id : '<missing>',
    };
  });
  return history.reverse();
}

function parseObject(bytes: Uint8Array): Json {
  return asObject(JSON.parse(Buffer.from(bytes).toString('utf8')));
}

function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
