// The facts that judgements.ts is about, got by trying: links are made in a network namespace that is gone afterwards, files
// written in a folder that is removed. Nothing here decides.

import { createSocket } from 'node:dgram';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, rm, statfs } from 'node:fs/promises';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { check, libcFunctions } from '../agent/linux/libc.ts';
import { createNamespace, removeNamespace, startThreadPool } from '../agent/linux/namespace.ts';
import {
  type Attribute,
  encodeAttributes,
  netlinkFlags,
  text,
  uint16BigEndian,
  uint32,
} from '../agent/linux/netlink.ts';
import { NetlinkSocket, netlinkProtocols } from '../agent/linux/netlink-socket.ts';
import { addTable } from '../agent/linux/nftables.ts';
import { createVeth, decodeLink, listLinks } from '../agent/linux/rtnetlink.ts';
import { parseHostPort } from '../core/addresses.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { NodeCaService } from '../proto/generated/membership.ts';
import { createClient, openChannel } from '../rpc/client.ts';
import { unverifiedCredentials } from '../rpc/tls.ts';
import type {
  CgroupFacts,
  ClockSample,
  DataPortFacts,
  FlushFacts,
  KernelFeature,
  LinkFacts,
  ManagerContact,
  MemoryFacts,
  SpaceFacts,
} from './judgements.ts';

const FLUSHES = 50;
const FLUSH_BYTES = 4096;
const CONNECT_LIMIT_MS = 3_000;
const CALL_LIMIT_MS = 5_000;
// The first has the handshake in it; the quickest of the others is the one to believe.
const CLOCK_QUESTIONS = 4;

export function probeCgroup(): CgroupFacts {
  const unified = '/sys/fs/cgroup/cgroup.controllers';
  if (existsSync(unified))
    return { version: 2, controllers: readFileSync(unified, 'utf8').trim().split(' ') };
  // Columns: name, hierarchy (0: not mounted), cgroups, enabled.
  const rows = readFileSync('/proc/cgroups', 'utf8').split('\n').slice(1);
  const controllers = rows.flatMap((row) => {
    const [name = '', hierarchy, , enabled] = row.split(/\s+/);
    return enabled === '1' && hierarchy !== '0' ? [name] : [];
  });
  return { version: controllers.length === 0 ? 0 : 1, controllers };
}

export function probeMemory(): MemoryFacts {
  const kibibytes = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  const availableBytes = kibibytes === undefined ? os.freemem() : Number(kibibytes) * 1024;
  return { totalBytes: os.totalmem(), availableBytes };
}

export async function probeSpace(directory: string): Promise<SpaceFacts> {
  const { bavail, bsize } = await statfs(directory);
  return { directory, freeBytes: bavail * bsize };
}

/** How long small writes take until they would survive a loss of power. */
export async function probeFlush(directory: string): Promise<Omit<FlushFacts, 'isLog'>> {
  const facts = { directory, problem: '', p99Ms: 0, samples: FLUSHES };
  try {
    return await withinFolder(directory, async (folder) => ({ ...facts, p99Ms: await timeFlushes(folder) }));
  } catch (error) {
    return { ...facts, problem: messageOf(error) };
  }
}

async function timeFlushes(folder: string): Promise<number> {
  await using file = await open(path.join(folder, 'flushes'), 'w', 0o600);
  const block = Buffer.alloc(FLUSH_BYTES, 1);
  const timesMs: number[] = [];
  for (let count = 0; count < FLUSHES; count++) {
    const startMs = performance.now();
    await file.write(block);
    await file.datasync();
    timesMs.push(performance.now() - startMs);
  }
  return timesMs.sort((a, b) => a - b)[Math.ceil(0.99 * FLUSHES) - 1] ?? 0;
}

/** In a folder of its own that is gone afterwards. */
async function withinFolder<T>(directory: string, use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(path.join(directory, 'examine-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export interface KernelPlaces {
  readonly dataRoot: string;
  readonly runDir: string;
}

/** What the kernel says to each feature when it is used; empty: it works. */
export async function probeKernel({
  dataRoot,
  runDir,
}: KernelPlaces): Promise<Record<KernelFeature, string>> {
  await startThreadPool();
  const pin = path.join(runDir, `examine-${process.pid}.net`);
  const overlayfs = await probeOverlayfs(dataRoot);
  removeNamespace(pin);
  try {
    const network = createNamespace(pin, probeNetwork);
    return { overlayfs, 'network namespaces': '', ...network };
  } catch (error) {
    const problem = messageOf(error);
    const unknown = 'cannot be tried without network namespaces';
    return {
      overlayfs,
      'network namespaces': problem,
      veth: unknown,
      nftables: unknown,
      bridge: unknown,
      vxlan: unknown,
    };
  } finally {
    removeNamespace(pin);
  }
}

/** Runs inside a namespace of its own, which takes all that is made with it. */
function probeNetwork(
  namespaceFd: number,
): Omit<Record<KernelFeature, string>, 'overlayfs' | 'network namespaces'> {
  using links = new NetlinkSocket(netlinkProtocols.route);
  const veth = createVeth({ name: 'examine0', mtu: 1500, peer: { name: 'examine1', namespaceFd } });
  return {
    veth: problemOf(() => links.execute([veth])),
    bridge: problemOf(() => links.execute([createLink('examine2', 'bridge')])),
    vxlan: problemOf(() => links.execute([createLink('examine3', 'vxlan', VXLAN_DATA)])),
    nftables: problemOf(() => {
      using tables = new NetlinkSocket(netlinkProtocols.netfilter);
      tables.executeBatch([addTable('examine')]);
    }),
  };
}

const RTM_NEWLINK = 16;
const LINK_HEADER_BYTES = 16;
const linkAttributes = { name: 3, info: 18 } as const;
const infoAttributes = { kind: 1, data: 2 } as const;
// Identifier and UDP port: without them the kernel makes none.
const VXLAN_DATA: readonly Attribute[] = [
  [1, uint32(1)],
  [15, uint16BigEndian(4789)],
];

function createLink(name: string, kind: string, data: readonly Attribute[] = []) {
  const info: Attribute[] = [[infoAttributes.kind, text(kind)]];
  if (data.length > 0) info.push([infoAttributes.data, data]);
  const attributes = encodeAttributes([
    [linkAttributes.name, text(name)],
    [linkAttributes.info, info],
  ]);
  return {
    what: `create a ${kind} link`,
    type: RTM_NEWLINK,
    flags: netlinkFlags.create | netlinkFlags.exclusive,
    body: Buffer.concat([Buffer.alloc(LINK_HEADER_BYTES), attributes]),
  };
}

const MNT_DETACH = 2;

/** On the file system that images and containers will lie on. */
async function probeOverlayfs(dataRoot: string): Promise<string> {
  try {
    await withinFolder(dataRoot, async (folder) => mountOverlay(folder));
    return '';
  } catch (error) {
    return messageOf(error);
  }
}

function mountOverlay(folder: string): void {
  const place = (name: string) => path.join(folder, name);
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(place(name));
  const quoted = (name: string) => place(name).replace(/[\\:,]/g, '\\$&');
  const options = `lowerdir=${quoted('lower')},upperdir=${quoted('upper')},workdir=${quoted('work')}`;
  check(libcFunctions.mount('overlay', place('merged'), 'overlay', 0, options), 'mount');
  try {
    writeFileSync(path.join(place('merged'), 'file'), '');
  } finally {
    check(libcFunctions.umount2(place('merged'), MNT_DETACH), 'unmount');
  }
}

/** The port of the traffic between containers, on this machine. */
export function probeDataPort(port: number): Promise<DataPortFacts> {
  const socket = createSocket('udp4');
  return new Promise((resolve) => {
    socket.once('error', (error: NodeJS.ErrnoException) => {
      socket.close();
      const isTaken = error.code === 'EADDRINUSE';
      const holder = !isTaken ? 'unknown' : isHeldByKernel(port) ? 'kernel' : 'program';
      resolve({ port, holder, problem: error.message });
    });
    socket.bind({ port, exclusive: true }, () =>
      socket.close(() => resolve({ port, holder: 'nobody', problem: '' })),
    );
  });
}

/** Sockets of the kernel have no inode. */
function isHeldByKernel(port: number): boolean {
  const hexadecimal = port.toString(16).toUpperCase().padStart(4, '0');
  const rows = ['/proc/net/udp', '/proc/net/udp6'].flatMap((file) =>
    existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(1) : [],
  );
  return rows
    .map((row) => row.trim().split(/\s+/))
    .some(([, local = '', , , , , , , , inode]) => local.endsWith(`:${hexadecimal}`) && inode === '0');
}

export interface ManagerFacts {
  readonly contact: ManagerContact;
  /** Absent: it did not tell. */
  readonly clock?: ClockSample;
  /** The way to it; absent when it is unknown, or never leaves this machine. */
  readonly link?: LinkFacts;
}

/** Whether a manager answers, what its clock shows, and by which way it is reached. */
export async function probeManager(address: string): Promise<ManagerFacts> {
  let localAddress: string;
  try {
    localAddress = await connectTcp(address);
  } catch (error) {
    return { contact: { address, problem: messageOf(error) } };
  }
  const link = linkOf(localAddress, address);
  const way = link === undefined ? {} : { link };
  try {
    const clock = await askClock(address);
    return { contact: { address, problem: '' }, ...way, ...(clock && { clock }) };
  } catch (error) {
    if (!(error instanceof SwarmError)) throw error;
    const problem = `something answers, but not as a manager (${error.message})`;
    return { contact: { address, problem }, ...way };
  }
}

/** Returns the address on this side. */
function connectTcp(address: string): Promise<string> {
  const { host, port } = parseHostPort(address, 'HOST:PORT');
  const socket = connect({ host, port });
  return new Promise<string>((resolve, reject) => {
    socket.setTimeout(CONNECT_LIMIT_MS, () => reject(new Error(`no answer in ${CONNECT_LIMIT_MS / 1000} s`)));
    socket.once('error', reject);
    socket.once('connect', () => resolve(socket.localAddress ?? ''));
  }).finally(() => socket.destroy());
}

async function askClock(manager: string): Promise<ClockSample | undefined> {
  const channel = openChannel(manager, {}, unverifiedCredentials());
  try {
    const samples: ClockSample[] = [];
    for (let count = 0; count < CLOCK_QUESTIONS; count++) {
      const startMs = Date.now();
      const start = performance.now();
      const { nowMs } = await createClient(NodeCaService, channel).getRoots({}, { timeoutMs: CALL_LIMIT_MS });
      const roundTripMs = performance.now() - start;
      // A manager of an older version does not tell.
      if (nowMs === 0) return undefined;
      samples.push({ manager, skewMs: startMs + roundTripMs / 2 - nowMs, roundTripMs });
    }
    return samples.toSorted((a, b) => a.roundTripMs - b.roundTripMs)[0];
  } finally {
    channel.close();
  }
}

function linkOf(localAddress: string, towards: string): LinkFacts | undefined {
  const [name, addresses] =
    Object.entries(os.networkInterfaces()).find(([, all]) =>
      all?.some(({ address }) => address === localAddress.replace(/^::ffff:/, '')),
    ) ?? [];
  if (name === undefined || addresses?.every(({ internal }) => internal)) return undefined;
  using links = new NetlinkSocket(netlinkProtocols.route);
  const link = links
    .dump(listLinks)
    .map((reply) => decodeLink(reply.body))
    .find((candidate) => candidate.name === name);
  return link && { name, mtu: link.mtu, towards };
}

function problemOf(attempt: () => void): string {
  try {
    attempt();
    return '';
  } catch (error) {
    return messageOf(error);
  }
}
