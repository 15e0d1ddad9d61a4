// Devices that vendors describe in files of their own (Container Device Interface): what a container gets of them is written
// there, as edits of its specification. https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { messageOf, SwarmError } from '../../../core/errors.ts';
import { deviceAt, type HostDevice } from './devices.ts';
import type { OciMount } from './oci-mounts.ts';

/** Where they lie; what a later one says counts more. */
export const CDI_DIRECTORIES: readonly string[] = ['/etc/cdi', '/var/run/cdi'];

/** What a container gets beside what it was asked to have. */
export interface CdiEdits {
  readonly env: readonly string[];
  readonly devices: readonly HostDevice[];
  readonly mounts: readonly OciMount[];
  readonly hooks: Readonly<Record<string, readonly object[]>>;
  readonly additionalGids: readonly number[];
}

export interface CdiRequest {
  /** "vendor.com/class=name" */
  readonly names: readonly string[];
  readonly directories: readonly string[];
  readonly hostname: string;
  /** Owns device files of which nothing else is said. */
  readonly user: { readonly uid: number; readonly gid: number };
}

interface ContainerEdits {
  readonly env?: readonly string[];
  readonly deviceNodes?: readonly DeviceNode[];
  readonly mounts?: readonly CdiMount[];
  readonly hooks?: readonly CdiHook[];
  readonly additionalGIDs?: readonly number[];
}

interface DeviceNode {
  readonly path: string;
  readonly hostPath?: string;
  readonly fileMode?: number;
  readonly permissions?: string;
  readonly uid?: number;
  readonly gid?: number;
}

interface CdiMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly type?: string;
  readonly options?: readonly string[];
}

interface CdiHook {
  readonly hookName: string;
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly timeout?: number;
}

interface CdiFile {
  readonly file: string;
  readonly kind: string;
  readonly devices: readonly { readonly name: string; readonly containerEdits?: ContainerEdits }[];
  readonly containerEdits?: ContainerEdits;
}

const HOOKS = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'];
const KNOWN_EDITS = ['env', 'deviceNodes', 'mounts', 'hooks', 'additionalGIDs'];

/** Throws `failed-precondition` that names the device, the node and the files. */
export async function findCdiEdits(request: CdiRequest): Promise<CdiEdits | undefined> {
  if (request.names.length === 0) return undefined;
  const { files, unreadable } = await readFiles(request.directories);
  const used = new Set<CdiFile>();
  const edits: { readonly file: string; readonly edits: ContainerEdits }[] = [];
  for (const name of request.names) {
    const { file, device } = find(name, files, { ...request, unreadable });
    if (!used.has(file) && file.containerEdits) edits.push({ file: file.file, edits: file.containerEdits });
    used.add(file);
    if (device.containerEdits) edits.push({ file: file.file, edits: device.containerEdits });
  }
  const resolved = edits.map(({ file, edits: some }) => {
    try {
      return resolve(some, request.user);
    } catch (error) {
      throw refusal(`${file} of node ${request.hostname}: ${messageOf(error)}`, error);
    }
  });
  return merged(resolved);
}

async function readFiles(
  directories: readonly string[],
): Promise<{ files: CdiFile[]; unreadable: string[] }> {
  const files: CdiFile[] = [];
  const unreadable: string[] = [];
  for (const directory of directories) {
    if (!existsSync(directory)) continue;
    for (const name of readdirSync(directory).sort()) {
      if (!/\.(json|yaml|yml)$/.test(name)) continue;
      const file = path.join(directory, name);
      try {
        files.push({ ...(await parseFile(file)), file });
      } catch (error) {
        // Of another vendor, as a rule; named when a device is not found.
        unreadable.push(`${file} cannot be read: ${messageOf(error)}`);
      }
    }
  }
  return { files, unreadable };
}

async function parseFile(file: string): Promise<Omit<CdiFile, 'file'>> {
  const text = readFileSync(file, 'utf8');
  const content = file.endsWith('.json') ? JSON.parse(text) : (await import('yaml')).parse(text);
  if (typeof content?.kind !== 'string' || !Array.isArray(content.devices))
    throw new Error('it has no kind and devices');
  return content;
}

function find(
  name: string,
  files: readonly CdiFile[],
  { directories, hostname, unreadable }: CdiRequest & { readonly unreadable: readonly string[] },
): { file: CdiFile; device: CdiFile['devices'][number] } {
  const [kind, deviceName] = name.split('=');
  const ofKind = files.filter((file) => file.kind === kind);
  const matches = ofKind.flatMap((file) =>
    file.devices.filter((device) => device.name === deviceName).map((device) => ({ file, device })),
  );
  const rank = ({ file }: { file: CdiFile }) => directories.indexOf(path.dirname(file.file));
  const [best, next] = matches.sort((a, b) => rank(b) - rank(a));
  if (best !== undefined && next !== undefined && rank(best) === rank(next))
    throw refusal(`node ${hostname} has ${name} in ${best.file.file} and in ${next.file.file}`);
  if (best !== undefined) return best;
  const known = ofKind.map(
    ({ file, devices }) => `${file} has ${devices.map((device) => device.name).join(', ') || 'none'}`,
  );
  const reasons = known.length > 0 ? known : [`no file in ${directories.join(' or ')} describes ${kind}`];
  throw refusal(`node ${hostname} has no ${name}: ${[...reasons, ...unreadable].join('; ')}`);
}

function resolve(edits: ContainerEdits, user: CdiRequest['user']): CdiEdits {
  const unknown = Object.keys(edits).find((key) => !KNOWN_EDITS.includes(key));
  if (unknown !== undefined) throw new Error(`containerEdits.${unknown} is not supported`);
  const { env = [], deviceNodes = [], mounts = [], hooks = [], additionalGIDs = [] } = edits;
  return {
    env,
    devices: deviceNodes.map((node) => deviceOf(node, user)),
    mounts: mounts.map(mountOf),
    hooks: Object.fromEntries(
      HOOKS.map((hookName) => [hookName, hooks.filter((hook) => hook.hookName === hookName).map(hookOf)]),
    ),
    additionalGids: additionalGIDs,
  };
}

function deviceOf(node: DeviceNode, user: CdiRequest['user']): HostDevice {
  const hostPath = node.hostPath || node.path;
  const stat = statSync(hostPath, { throwIfNoEntry: false, bigint: true });
  const found =
    stat && deviceAt(stat, { source: hostPath, place: node.path, access: node.permissions || 'rwm' });
  if (found === undefined)
    throw new Error(`device node ${hostPath} ${stat ? 'is not a device' : 'does not exist'}`);
  const { uid = user.uid, gid = user.gid, fileMode = found.node.fileMode } = node;
  return { ...found, node: { ...found.node, uid, gid, fileMode } };
}

function mountOf({ hostPath, containerPath, type = '', options = [] }: CdiMount): OciMount {
  const isBind = type === '' || type === 'bind';
  if (isBind && !existsSync(hostPath)) throw new Error(`mount ${hostPath} does not exist`);
  const hasBind = options.includes('bind') || options.includes('rbind');
  return {
    destination: containerPath,
    type: isBind ? 'bind' : type,
    source: hostPath,
    options: isBind && !hasBind ? [...options, 'rbind'] : options,
  };
}

function hookOf({ hookName: _name, path: program, args, env, timeout }: CdiHook): object {
  return {
    path: program,
    ...(args && { args }),
    ...(env && { env }),
    ...(timeout !== undefined && { timeout }),
  };
}

function merged(all: readonly CdiEdits[]): CdiEdits {
  const hooks = HOOKS.map((name) => [name, all.flatMap((edits) => edits.hooks[name] ?? [])] as const);
  return {
    env: all.flatMap(({ env }) => env),
    devices: all.flatMap(({ devices }) => devices),
    mounts: all.flatMap(({ mounts }) => mounts),
    hooks: Object.fromEntries(hooks.filter(([, some]) => some.length > 0)),
    additionalGids: [...new Set(all.flatMap(({ additionalGids }) => additionalGids))],
  };
}

function refusal(message: string, cause?: unknown): SwarmError {
  return new SwarmError('failed-precondition', `device: ${message}`, {
    hint: 'A tool of the vendor writes these files, such as nvidia-ctk cdi generate.',
    cause,
  });
}
