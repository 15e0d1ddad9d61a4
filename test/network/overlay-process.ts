// A process that has an overlay open, so that a test can kill it. Arguments: run directory, engine id, data path
// address, name server. It answers calls. The namespaces of its containers are pinned where their endpoints say.

import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createNamespace, isPinnedNamespace, removeNamespace } from '../../agent/linux/namespace.ts';
import { NetlinkSocket } from '../../agent/linux/netlink-socket.ts';
import { networkLog } from '../../agent/log.ts';
import { openOverlay } from '../../agent/network/overlay/kernel-overlay.ts';
import type { OverlayEndpoint, OverlayState, VirtualService } from '../../agent/network/overlay/overlay.ts';
import { answerCalls } from './answer-calls.ts';

const [runDir = '', engineId = '', dataPathAddress = '', nameServer = ''] = process.argv.slice(2);
const overlay = await openOverlay({
  runDir,
  engineId,
  dataPathAddress,
  nameServers: nameServer === '' ? [] : [nameServer],
  logger: networkLog,
});

async function attach(endpoint: OverlayEndpoint): Promise<unknown> {
  if (!isPinnedNamespace(endpoint.namespacePath)) {
    mkdirSync(dirname(endpoint.namespacePath), { recursive: true });
    removeNamespace(endpoint.namespacePath);
    createNamespace(endpoint.namespacePath, () => undefined);
  }
  return overlay.attach(endpoint);
}

async function detach({ id, namespacePath }: OverlayEndpoint): Promise<void> {
  await overlay.detach(id);
  removeNamespace(namespacePath);
}

/** The process is killed in place of its next netlink request but so many. */
async function dieAfter(requests: number): Promise<void> {
  let left = requests;
  const { execute, executeBatch } = NetlinkSocket.prototype;
  const count = (): void => {
    if (left-- === 0) process.kill(process.pid, 'SIGKILL');
  };
  NetlinkSocket.prototype.execute = function (messages) {
    count();
    execute.call(this, messages);
  };
  NetlinkSocket.prototype.executeBatch = function (messages) {
    count();
    executeBatch.call(this, messages);
  };
}

interface Wirings {
  readonly networkId: string;
  readonly folder: string;
  readonly count: number;
}

/** Milliseconds of each: a namespace made, its endpoint attached, and both taken away. */
async function measureWiring({ networkId, folder, count }: Wirings): Promise<Record<string, number[]>> {
  const namespaceMs: number[] = [];
  const attachMs: number[] = [];
  const detachMs: number[] = [];
  const endpoints = Array.from({ length: count }, (_, index): OverlayEndpoint => {
    const id = `measured${index}`;
    const address = `10.0.${128 + (index >> 8)}.${index & 255}`;
    return { id, networkId, address, namespacePath: join(folder, id), isDefaultRoute: true };
  });
  mkdirSync(folder, { recursive: true });
  for (const endpoint of endpoints.slice(1)) {
    const started = performance.now();
    createNamespace(endpoint.namespacePath, () => undefined);
    const made = performance.now();
    await overlay.attach(endpoint);
    namespaceMs.push(made - started);
    attachMs.push(performance.now() - made);
  }
  for (const endpoint of endpoints.slice(1)) {
    const started = performance.now();
    await detach(endpoint);
    detachMs.push(performance.now() - started);
  }
  return { namespaceMs, attachMs, detachMs };
}

interface Updates {
  readonly networkId: string;
  readonly services: number;
  readonly backends: number;
  readonly rounds: number;
}

/** Milliseconds of each: one of many services gets another backend in the place of one, or one less. */
async function measureUpdates({ networkId, services, backends, rounds }: Updates): Promise<number[]> {
  const list: VirtualService[] = Array.from({ length: services }, (_, index) => ({
    vip: `10.0.${200 + (index >> 8)}.${index & 255}`,
    backends: Array.from({ length: backends }, (__, number) => `10.0.${number}.${2 + (index % 250)}`),
  }));
  const state: OverlayState = { remotes: [], services: list, names: [] };
  await overlay.apply(networkId, state);
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const index = (round * 7) % services;
    const before = list[index]!;
    const changed = before.backends.slice(1);
    if (round % 2 === 0) changed.push(`10.0.100.${round % 250}`);
    const next = list.with(index, { ...before, backends: changed });
    const started = performance.now();
    await overlay.apply(networkId, { ...state, services: next });
    times.push(performance.now() - started);
    await overlay.apply(networkId, { ...state, services: list });
  }
  await overlay.apply(networkId, { remotes: [], services: [], names: [] });
  return times;
}

interface PortUpdates {
  readonly networkId: string;
  readonly ports: number;
  readonly backends: number;
  readonly rounds: number;
}

/** Milliseconds: all ports published at once, and each change of one port's backends. */
async function measurePorts({ networkId, ports, backends, rounds }: PortUpdates): Promise<object> {
  const published = Array.from({ length: ports }, (_, index) => ({
    protocol: 'tcp' as const,
    port: 20_000 + index,
    backends: Array.from({ length: backends }, (__, number) => ({
      address: `10.0.0.${number + 2}`,
      port: 80,
    })),
  }));
  const apply = async (list: typeof published): Promise<number> => {
    const started = performance.now();
    await overlay.apply(networkId, { remotes: [], services: [], names: [], published: list });
    return performance.now() - started;
  };
  const allMs = await apply(published);
  const changeMs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const before = published[round]!;
    changeMs.push(await apply(published.with(round, { ...before, backends: before.backends.slice(1) })));
    await apply(published);
  }
  await apply([]);
  return { allMs, changeMs };
}

/** Microseconds of processor time that this process has used. */
async function cpuMicros(): Promise<number> {
  const { user, system } = process.cpuUsage();
  return user + system;
}

await answerCalls({
  measureWiring,
  measurePorts,
  measureUpdates,
  cpuMicros,
  ensure: overlay.ensure.bind(overlay),
  remove: overlay.remove.bind(overlay),
  attach,
  detach,
  apply: ([networkId, state]: [string, OverlayState]) => overlay.apply(networkId, state),
  audit: overlay.audit.bind(overlay),
  repair: overlay.repair.bind(overlay),
  list: overlay.list.bind(overlay),
  portProblems: overlay.portProblems.bind(overlay),
  dieAfter,
  /** Of tasks that stop together. */
  endFlows: ([networkId, addresses]: [string, string[]]) =>
    Promise.all(addresses.map((address) => overlay.endFlows(networkId, [address]))),
});
