// Builds a small image from this machine's static busybox, as an OCI archive: no registry is needed to try tsswarm.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';

export interface DemoImageOptions {
  /** "demo:1" */
  readonly name: string;
  /** A statically linked busybox. */
  readonly busyboxPath?: string;
  /** What is added to or replaced in the configuration: Cmd, Env, User, Labels and so on. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** What it is said to be for; this machine's, unless given. */
  readonly architecture?: string;
  /** Further layers: path → contents, without a leading slash. */
  readonly layers?: readonly Readonly<Record<string, string | Uint8Array>>[];
}

export interface DemoImage {
  /** The whole as an OCI archive. */
  readonly archive: Buffer;
  readonly manifest: Buffer;
  readonly blobs: ReadonlyMap<string, Buffer>;
}

const ACCOUNTS = {
  'etc/passwd':
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nweb:x:1000:1000::/home/web:/bin/sh\n',
  'etc/group': 'root:x:0:\nnobody:x:65534:\nweb:x:1000:\nadmins:x:2000:web,root\nvideo:x:44:\n',
};
const DIRECTORIES = ['bin', 'etc', 'tmp', 'root', 'home', 'home/web', 'var', 'proc', 'sys', 'dev'];
// The same bytes for the same busybox: the digest tells whether the image is there already.
const EPOCH = new Date(0);

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const blobPath = (digest: string) => `blobs/sha256/${digest.slice('sha256:'.length)}`;

/** Builds the image; takes well under a second. */
export async function buildDemoImage(options: DemoImageOptions): Promise<DemoImage> {
  const base = await baseLayer(options.busyboxPath ?? '/bin/busybox');
  const others = await Promise.all((options.layers ?? []).map((files) => fileLayer(files)));
  const tars = [base, ...others];
  const compressed = tars.map((tar) => gzipSync(tar, { level: 6 }));
  const config = Buffer.from(
    JSON.stringify({
      architecture: options.architecture ?? (process.arch === 'arm64' ? 'arm64' : 'amd64'),
      os: 'linux',
      created: EPOCH.toISOString(),
      config: { Cmd: ['/bin/sh'], Env: ['PATH=/bin'], ...options.config },
      rootfs: { type: 'layers', diff_ids: tars.map(digestOf) },
      history: tars.map(() => ({ created: EPOCH.toISOString(), created_by: 'tsswarm demo image' })),
    }),
  );
  const describe = (mediaType: string, bytes: Buffer) => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  });
  const manifestType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: describe('application/vnd.oci.image.config.v1+json', config),
      layers: compressed.map((bytes) => describe('application/vnd.oci.image.layer.v1.tar+gzip', bytes)),
    }),
  );
  const blobs = new Map([config, ...compressed].map((bytes) => [digestOf(bytes), bytes]));
  const entry = {
    ...describe(manifestType, manifest),
    annotations: { 'io.containerd.image.name': options.name },
  };
  const archive = await tarOf([
    ['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ['index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [entry] }))],
    [blobPath(digestOf(manifest)), manifest],
    ...[...blobs].map(([digest, bytes]) => [blobPath(digest), bytes] as const),
  ]);
  return { archive, manifest, blobs };
}

async function baseLayer(busyboxPath: string): Promise<Buffer> {
  const applets = execFileSync(busyboxPath, ['--list'], { encoding: 'utf8' }).trim().split('\n');
  const tar = pack();
  for (const name of DIRECTORIES) {
    const isHome = name === 'home/web';
    const mode = name === 'tmp' ? 0o1777 : 0o755;
    const owner = isHome ? { uid: 1000, gid: 1000 } : {};
    tar.entry({ name: `${name}/`, type: 'directory', mode, mtime: EPOCH, ...owner });
  }
  tar.entry({ name: 'bin/busybox', mode: 0o755, mtime: EPOCH }, readFileSync(busyboxPath));
  for (const applet of applets.filter((name) => name !== 'busybox'))
    tar.entry({ name: `bin/${applet}`, type: 'symlink', linkname: 'busybox', mtime: EPOCH });
  for (const [name, text] of Object.entries(ACCOUNTS)) tar.entry({ name, mode: 0o644, mtime: EPOCH }, text);
  tar.finalize();
  return collect(tar as AsyncIterable<Uint8Array>);
}

async function fileLayer(files: Readonly<Record<string, string | Uint8Array>>): Promise<Buffer> {
  return tarOf(Object.entries(files));
}

/** A tar archive of files. */
export async function tarOf(
  files: Iterable<readonly [name: string, contents: string | Uint8Array]>,
): Promise<Buffer> {
  const tar = pack();
  for (const [name, contents] of files) tar.entry({ name, mode: 0o644, mtime: EPOCH }, Buffer.from(contents));
  tar.finalize();
  return collect(tar as AsyncIterable<Uint8Array>);
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}
