// The documents that make up an image, OCI's and Docker's, read with limits: they come from strangers. Pure.

import { createHash } from 'node:crypto';
import { HEALTH_TIME_MS_MAX } from '../../../core/defaults.ts';
import { SwarmError } from '../../../core/errors.ts';
import type { HealthCheck } from '../../../core/generated/objects.ts';
import { isDigest } from '../../../core/image-reference.ts';

export const MEDIA_TYPES = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
} as const;

/** Docker's own limit; the largest real index has some 30 KiB. */
export const DOCUMENT_BYTES_MAX = 4 * 2 ** 20;
// Docker stops at 127 layers.
const LAYERS_MAX = 512;
const MANIFESTS_MAX = 1024;

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: Platform;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface ManifestDocument {
  readonly kind: 'manifest';
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export type ImageDocument =
  | ManifestDocument
  | { readonly kind: 'index'; readonly manifests: readonly Descriptor[] };

const DEFAULT_SHELL: readonly string[] = ['/bin/sh', '-c'];

/** What the engine uses of an image's configuration. */
export interface ImageConfiguration {
  readonly platform: Platform;
  readonly createdAtMs: number;
  readonly diffIds: readonly string[];
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly workdir: string;
  readonly user: string;
  readonly stopSignal: string;
  readonly volumes: readonly string[];
  /** What runs a line of a health check; never empty. */
  readonly shell: readonly string[];
  readonly healthCheck?: HealthCheck;
  readonly labels: Readonly<Record<string, string>>;
}

export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function broken(what: string): SwarmError {
  return new SwarmError('invalid-argument', `broken image: ${what}`);
}

type Json = Readonly<Record<string, unknown>>;

function asObject(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw broken(`${what} is no object`);
  return value as Json;
}

function asArray(value: unknown, what: string, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw broken(`${what} is no list`);
  if (value.length > max) throw broken(`${what} has more than ${max} members`);
  return value;
}

function asString(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function asStrings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

/** A whole number that is not negative, or 0: what an image says wrongly it does not say. */
function asCount(value: unknown, max: number): number {
  return typeof value === 'number' && value > 0 ? Math.min(Math.ceil(value), max) : 0;
}

function asStringMap(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(Object.entries(value).filter(([, item]) => typeof item === 'string'));
}

/** Parses JSON of bounded size. */
export function parseDocument(bytes: Uint8Array, what: string): Json {
  if (bytes.length > DOCUMENT_BYTES_MAX) throw broken(`${what} is larger than ${DOCUMENT_BYTES_MAX} bytes`);
  try {
    return asObject(JSON.parse(Buffer.from(bytes).toString('utf8')), what);
  } catch (error) {
    if (error instanceof SyntaxError) throw broken(`${what} is no JSON`);
    throw error;
  }
}

function parseDescriptor(value: unknown, what: string): Descriptor {
  const json = asObject(value, what);
  const digest = asString(json['digest']);
  const size = json['size'];
  if (!isDigest(digest)) throw broken(`${what} has no sha256 digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw broken(`${what} has no size`);
  const platform = json['platform'];
  return {
    mediaType: asString(json['mediaType']),
    digest,
    size,
    annotations: asStringMap(json['annotations']),
    ...(platform === undefined ? undefined : { platform: readPlatform(asObject(platform, what)) }),
  };
}

function readPlatform(json: Json): Platform {
  const variant = asString(json['variant']);
  return {
    os: asString(json['os']),
    architecture: asString(json['architecture']),
    ...(variant === '' ? undefined : { variant }),
  };
}

/** Reads an index or a manifest. One document cannot be both (CVE-2021-41190). */
export function parseImageDocument(bytes: Uint8Array): ImageDocument {
  const json = parseDocument(bytes, 'manifest');
  const isIndex = json['manifests'] !== undefined;
  if (isIndex && (json['layers'] !== undefined || json['config'] !== undefined))
    throw broken('document is an index and a manifest at once');
  if (isIndex) {
    const manifests = asArray(json['manifests'], 'index', MANIFESTS_MAX);
    return { kind: 'index', manifests: manifests.map((item) => parseDescriptor(item, 'index entry')) };
  }
  if (json['schemaVersion'] === 1)
    throw new SwarmError('unimplemented', 'image has a manifest of schema 1, which is obsolete', {
      hint: 'Push the image again with a current tool.',
    });
  const layers = asArray(json['layers'], 'layers', LAYERS_MAX).map((item) => parseDescriptor(item, 'layer'));
  return { kind: 'manifest', config: parseDescriptor(json['config'], 'config'), layers };
}

export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociIndex || mediaType === MEDIA_TYPES.dockerIndex;
}

/** Docker's HEALTHCHECK, which has its times in nanoseconds. */
function readHealthCheck(value: unknown): HealthCheck | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const json = value as Json;
  const timeMs = (name: string) => asCount(Number(json[name]) / 1e6, HEALTH_TIME_MS_MAX);
  return {
    test: asStrings(json['Test']),
    intervalMs: timeMs('Interval'),
    timeoutMs: timeMs('Timeout'),
    retries: asCount(json['Retries'], Number.MAX_SAFE_INTEGER),
    startPeriodMs: timeMs('StartPeriod'),
    startIntervalMs: timeMs('StartInterval'),
  };
}

export function parseImageConfiguration(bytes: Uint8Array): ImageConfiguration {
  const json = parseDocument(bytes, 'image configuration');
  const run =
    json['config'] === undefined || json['config'] === null ? {} : asObject(json['config'], 'config');
  const rootfs = asObject(json['rootfs'], 'rootfs');
  const diffIds = asArray(rootfs['diff_ids'], 'diff_ids', LAYERS_MAX).map(asString);
  if (!diffIds.every(isDigest)) throw broken('diff_ids are no digests');
  const createdAtMs = Date.parse(asString(json['created']));
  const shell = asStrings(run['Shell']);
  const healthCheck = readHealthCheck(run['Healthcheck']);
  return {
    platform: readPlatform(json),
    createdAtMs: Number.isNaN(createdAtMs) ? 0 : createdAtMs,
    diffIds,
    entrypoint: asStrings(run['Entrypoint']),
    command: asStrings(run['Cmd']),
    env: asStrings(run['Env']),
    workdir: asString(run['WorkingDir']),
    user: asString(run['User']),
    stopSignal: asString(run['StopSignal']),
    volumes: Object.keys(asObject(run['Volumes'] ?? {}, 'volumes')),
    labels: asStringMap(run['Labels']),
    shell: shell.length > 0 ? shell : DEFAULT_SHELL,
    ...(healthCheck && { healthCheck }),
  };
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', arm: 'arm' };

export function machinePlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch };
}

/** Reads "os/arch[/variant]". */
export function parsePlatform(text: string): Platform {
  const [os, architecture, variant, ...rest] = text.split('/');
  if (!os || !architecture || rest.length > 0)
    throw new SwarmError(
      'invalid-argument',
      `platform ${JSON.stringify(text)} is not os/architecture[/variant]`,
    );
  return { os, architecture, ...(variant ? { variant } : undefined) };
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** Throws `not-found` in Docker's words when the image is of another platform than the one asked for. */
export function requirePlatform(name: string, own: Platform, asked: string | undefined): void {
  if (asked === undefined) return;
  const wanted = parsePlatform(asked);
  const descriptor = { mediaType: '', digest: '', size: 0, annotations: {}, platform: own };
  if (choosePlatform([descriptor], wanted) !== undefined) return;
  throw new SwarmError(
    'not-found',
    `image with reference ${name} was found but does not provide the specified platform (${formatPlatform(wanted)})`,
    { hint: `It is for ${formatPlatform(own)}: a node keeps one platform of each name.` },
  );
}

// What an absent variant means.
const DEFAULT_VARIANTS: Readonly<Record<string, string>> = { arm64: 'v8', arm: 'v7', amd64: 'v1' };

/** The entry for the platform: same variant first, else the entry with the usual one. */
export function choosePlatform(entries: readonly Descriptor[], wanted: Platform): Descriptor | undefined {
  const variant = (platform: Platform) => platform.variant ?? DEFAULT_VARIANTS[platform.architecture] ?? '';
  const fitting = entries.filter(
    ({ platform }) => platform?.os === wanted.os && platform.architecture === wanted.architecture,
  );
  return (
    fitting.find(({ platform }) => platform !== undefined && variant(platform) === variant(wanted)) ??
    (wanted.variant === undefined ? fitting[0] : undefined)
  );
}

/** containerd's names of the unpacked layers: each covers all layers up to it. */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : digestOf(`${parent} ${diffId}`));
  }
  return chain;
}
