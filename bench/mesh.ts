// What a connection costs on its way, part of the network bench: between containers directly and by a virtual address, and
// from a client beyond a router to a published port, against a port of Docker's bridge, and to a container elsewhere
// against the same with source translation at the node that it enters by, as Docker's routing mesh has it (there with IPVS,
// which not every machine has). Processor time of client and server; paths take turns, so that what else the machine does hits all alike.

import { readFileSync } from 'node:fs';
import type { VirtualService } from '../agent/network/overlay/overlay.ts';
import { buildDemoImage } from '../deploy/demo-image.ts';
import { ingressState, publishedContainer } from '../test/network/ingress-lab.ts';
import { CallableProgram } from '../test/network/lab.ts';
import { type Container, ingress, net, type OverlayHost, OverlayLab } from '../test/network/overlay-lab.ts';
import { Docker } from './docker.ts';
import { againstPeer, median, percentile, type Row } from './report.ts';

const ROUNDS = 150;
const ROUNDS_QUICK = 30;
const CONNECTIONS = 200;
const SERVICES = 1000;
const BACKENDS = 20;
/** Of the rounds, by processor time: what else the machine does only ever adds. */
const UNDISTURBED = 0.05;
const SEND_SECONDS = 1;
const SEND_ROUNDS = 5;
const SEND_ROUNDS_QUICK = 1;
const IMAGE = 'bench:1';
const BRIDGE = "Docker's published port";
const SERVE_PORT = 90;
const SINK_PORT = 91;
/** Published ports, by what is behind them. */
const PORTS = { local: 8090, remote: 8091, localSink: 8092, remoteSink: 8093 } as const;
/** Of the first node, for clients whose own is hidden. */
const TRANSLATED_SOURCE = '10.0.0.200';
const SERVICE_RATIO_MAX = 1.15;
/** What repeated measurements of one path differ by. */
const NOISE = 1.05;
const MICROS_PER_NANO = 1e-3;
const GIGABIT_BYTES = 1e9 / 8;

interface Path {
  readonly what: string;
  readonly client: CallableProgram;
  readonly host: string;
  /** To where connections are made, and bytes sent. */
  readonly ports: readonly [serve: number, sink: number];
  readonly serverPid: number;
  /** Whose time counts as 1. */
  readonly peer?: string;
  readonly ratioMax?: number;
  /** Through the mesh while it hides its clients. */
  readonly isHidden?: true;
}

interface Paths {
  readonly all: readonly Path[];
  /** Lets the node that clients enter by translate their addresses. */
  readonly hide: () => void;
  readonly show: () => Promise<void>;
}

/** Bars: a virtual address costs at most 1.15 of a direct connection, the mesh no more than one that hides its clients. */
export async function meshBench(isQuick: boolean): Promise<Row[]> {
  await using lab = new OverlayLab(3);
  await lab.ready();
  await using docker = await Docker.startEngine(lab.hosts[2]!.path);
  const paths = await openPaths(lab, docker);
  return [
    ...(await measureConnections(paths, isQuick ? ROUNDS_QUICK : ROUNDS)),
    ...(await measureThroughput(paths, isQuick ? SEND_ROUNDS_QUICK : SEND_ROUNDS)),
  ];
}

async function openPaths(lab: OverlayLab, docker: Docker): Promise<Paths> {
  const [here, there, third] = lab.hosts as [OverlayHost, OverlayHost, OverlayHost];
  for (const host of [here, there]) for (const network of [net, ingress]) await host.ensure(network);
  const far = await load(lab, lab.addFar());
  const client = await lab.container(here, net.id, '10.0.1.10');
  const near = await publishedContainer(lab, here, 20);
  const remote = await publishedContainer(lab, there, 30);
  const nearPid = await servers(lab, near.endpoint.namespacePath);
  const remotePid = await servers(lab, remote.endpoint.namespacePath);
  const hostPid = await servers(lab, here.path);
  await publishAll(lab, near, remote);
  for (const host of [here, there]) {
    const remotes = [client, near, remote]
      .filter((container) => container.host !== host)
      .map((container) => ({ address: own(container), nodeAddress: container.host.address }));
    const services = [
      { vip: '10.0.1.2', backends: [own(near)] },
      { vip: '10.0.1.3', backends: [own(remote)] },
      ...others(),
    ];
    await host.apply(net.id, { remotes, services });
  }
  const from = await load(lab, client.endpoint.namespacePath);
  const ports = [SERVE_PORT, SINK_PORT] as const;
  const meshed = { client: far, host: here.address };
  const [local, elsewhere] = [
    [PORTS.local, PORTS.localSink],
    [PORTS.remote, PORTS.remoteSink],
  ] as const;
  const all: Path[] = [
    { what: 'container, same node', client: from, host: own(near), ports, serverPid: nearPid },
    {
      what: 'virtual address, same node',
      ...{ client: from, host: '10.0.1.2', ports, serverPid: nearPid },
      ...{ peer: 'container, same node', ratioMax: SERVICE_RATIO_MAX },
    },
    { what: 'container, other node', client: from, host: own(remote), ports, serverPid: remotePid },
    {
      what: 'virtual address, other node',
      ...{ client: from, host: '10.0.1.3', ports, serverPid: remotePid },
      ...{ peer: 'container, other node', ratioMax: SERVICE_RATIO_MAX },
    },
    { what: 'process of the node, from outside', ...meshed, ports, serverPid: hostPid },
    {
      what: BRIDGE,
      ...{ client: far, host: third.address, ports: local },
      serverPid: await bridgeServers(lab, docker),
    },
    ...publishedPaths('same node', { ...meshed, ports: local, serverPid: nearPid }, BRIDGE),
    ...publishedPaths('other node', { ...meshed, ports: elsewhere, serverPid: remotePid }),
  ];
  return { all, ...hiding(lab) };
}

function publishedPaths(where: string, path: Omit<Path, 'what'>, peer?: string): Path[] {
  const translated = `source translated, ${where}`;
  return [
    { what: `published port, ${where}`, ...path, peer: peer ?? translated, ratioMax: NOISE },
    { what: translated, ...path, isHidden: true },
  ];
}

/** In a container of Docker's, whose ports it publishes by rules of iptables. */
async function bridgeServers(lab: OverlayLab, docker: Docker): Promise<number> {
  await docker.import(await buildDemoImage({ name: IMAGE }), IMAGE);
  const published = [`${PORTS.local}:${SERVE_PORT}`, `${PORTS.localSink}:${SINK_PORT}`];
  return servers(lab, `/proc/${await docker.runSleeping(IMAGE, published)}/ns/net`);
}

/** Services that nobody asks: a connection to one of a thousand costs as much. */
function others(): VirtualService[] {
  return Array.from({ length: SERVICES }, (_, index) => ({
    vip: `10.0.${16 + (index >> 8)}.${index & 255}`,
    backends: Array.from({ length: BACKENDS }, (__, number) => `10.0.${32 + number}.${index & 255}`),
  }));
}

/** In the services' own network. */
function own(container: Container): string {
  return container.address.replace(/^10\.0\.0\./, '10.0.1.');
}

async function load(lab: OverlayLab, namespacePath: string): Promise<CallableProgram> {
  const program = lab.program(namespacePath, 'connection-load.ts', []);
  await program.line();
  return new CallableProgram(program);
}

/** The process id of the one that serves connections. */
async function servers(lab: OverlayLab, namespacePath: string): Promise<number> {
  const [serve, sink] = [
    lab.program(namespacePath, 'connection-load.ts', ['serve', String(SERVE_PORT)]),
    lab.program(namespacePath, 'connection-load.ts', ['sink', String(SINK_PORT)]),
  ];
  for (const program of [serve, sink]) {
    const first = await program.line();
    if (first !== 'ready') throw new Error(`connection-load.ts: ${first}`);
  }
  return serve.process.pid!;
}

async function publishAll(lab: OverlayLab, near: Container, remote: Container): Promise<void> {
  const ports = [
    [PORTS.local, near, SERVE_PORT],
    [PORTS.remote, remote, SERVE_PORT],
    [PORTS.localSink, near, SINK_PORT],
    [PORTS.remoteSink, remote, SINK_PORT],
  ] as const;
  const published = ports.map(([port, { address }, target]) => ({
    protocol: 'tcp' as const,
    port,
    backends: [{ address, port: target }],
  }));
  for (const { host } of [near, remote])
    await host.apply(ingress.id, ingressState(lab, host, [near, remote], published));
}

/** Instead of the mesh's own way back of answers, which the overlay's repair writes again. */
function hiding(lab: OverlayLab): Pick<Paths, 'hide' | 'show'> {
  const [here, there] = lab.hosts as [OverlayHost, OverlayHost];
  there.inNetwork(ingress.id, `ip route add ${TRANSLATED_SOURCE}/32 via ${here.address} dev vx0 onlink`);
  here.inNetwork(ingress.id, 'nft add table ip hidden');
  const chain = '{ type nat hook postrouting priority 90 ; policy accept ; }';
  here.inNetwork(ingress.id, `nft add chain ip hidden post ${chain}`);
  const hide = (): void => {
    here.inNetwork(ingress.id, `nft add rule ip hidden post iifname up0 snat to ${TRANSLATED_SOURCE}`);
    for (const host of [here, there]) {
      for (const name of ['remember', 'separate', 'answer']) {
        host.inNetwork(ingress.id, `nft flush chain ip tsswarm_ingress ${name}`);
      }
      host.inNetwork(ingress.id, 'nft delete table netdev tsswarm_ingress');
    }
  };
  const show = async (): Promise<void> => {
    here.inNetwork(ingress.id, 'nft flush chain ip hidden post');
    for (const host of [here, there]) await host.overlay.call('repair', ingress.id);
    there.inNetwork(
      ingress.id,
      `ip route replace ${TRANSLATED_SOURCE}/32 via ${here.address} dev vx0 onlink`,
    );
  };
  return { hide, show };
}

/** One path after another, those that hide their clients last. */
async function takeTurns({ all, hide, show }: Paths, measure: (path: Path) => Promise<void>): Promise<void> {
  for (const path of all) if (path.isHidden !== true) await measure(path);
  hide();
  for (const path of all) if (path.isHidden === true) await measure(path);
  await show();
}

async function measureConnections(paths: Paths, rounds: number): Promise<Row[]> {
  const micros = new Map(paths.all.map(({ what }) => [what, [] as number[]]));
  for (let round = 0; round <= rounds; round++) {
    await takeTurns(paths, async ({ what, client, host, ports, serverPid }) => {
      const before = threadNanos(serverPid);
      const clientNanos = await client.call<number>('connectOften', {
        host,
        port: ports[0],
        count: CONNECTIONS,
      });
      const nanos = clientNanos + threadNanos(serverPid) - before;
      // The first one warms up.
      if (round > 0) micros.get(what)!.push((nanos / CONNECTIONS) * MICROS_PER_NANO);
    });
  }
  return rowsOf('a connection', 'µs', paths.all, (what) => percentile(micros.get(what)!, UNDISTURBED));
}

async function measureThroughput(paths: Paths, rounds: number): Promise<Row[]> {
  const gigabits = new Map(paths.all.map(({ what }) => [what, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    await takeTurns(paths, async ({ what, client, host, ports }) => {
      const bytes = await client.call<number>('sendFor', { host, port: ports[1], seconds: SEND_SECONDS });
      gigabits.get(what)!.push(bytes / GIGABIT_BYTES);
    });
  }
  return rowsOf('bytes', 'Gbit/s', paths.all, (what) => median(gigabits.get(what)!));
}

function rowsOf(
  prefix: string,
  unit: 'µs' | 'Gbit/s',
  paths: readonly Path[],
  figureOf: (what: string) => number,
): Row[] {
  return paths.map(({ what, peer, ratioMax }) => {
    const value = figureOf(what);
    const name = `${prefix}: ${what}`;
    if (peer === undefined || ratioMax === undefined)
      return { what: name, value: Number(value.toPrecision(4)), unit };
    const peerValue = figureOf(peer);
    const row = againstPeer(name, unit, value, peerValue, ratioMax);
    // Rates are told, not judged: two processors serve both ends, and whatever else the machine does.
    return unit === 'µs' ? row : { what: name, unit, value: row.value, peer: row.peer!, ratio: row.ratio! };
  });
}

function threadNanos(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]);
}
