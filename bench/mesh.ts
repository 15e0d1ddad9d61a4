// What a connection costs on its way, part of the network bench: between containers directly and by a virtual address, and
// from a client beyond a router to a published port, against Docker's mesh as it lays it out, with a port of Docker's own
// bridge beside them. Processor time of client and server; paths take turns, so that what else the machine does hits all alike.

import { readFileSync } from 'node:fs';
import type { VirtualService } from '../agent/network/overlay/overlay.ts';
import { buildDemoImage } from '../deploy/demo-image.ts';
import { ingressState, publishedContainer } from '../test/network/ingress-lab.ts';
import { CallableProgram } from '../test/network/lab.ts';
import { type Container, ingress, net, type OverlayHost, OverlayLab } from '../test/network/overlay-lab.ts';
import { Docker } from './docker.ts';
import { layDockerMesh } from './docker-mesh.ts';
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
const SERVE_PORT = 90;
const SINK_PORT = 91;
/** Of their own: to the container, connections by its address and by the virtual one would else be the same ones again. */
const VIP_PORTS = [94, 95] as const;
/** Published ports, by what is behind them. */
const LOCAL_PORTS = [8090, 8092] as const;
const REMOTE_PORTS = [8091, 8093] as const;
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
}

/** Bars: a virtual address costs at most 1.15 of a direct connection, a published port no more than one of Docker's mesh. */
export async function meshBench(isQuick: boolean): Promise<Row[]> {
  await using lab = new OverlayLab(5);
  await lab.ready();
  await using docker = await Docker.startEngine(lab.hosts[2]!.path);
  const paths = await openPaths(lab, docker);
  return [
    ...(await measureConnections(paths, isQuick ? ROUNDS_QUICK : ROUNDS)),
    ...(await measureThroughput(paths, isQuick ? SEND_ROUNDS_QUICK : SEND_ROUNDS)),
  ];
}

async function openPaths(lab: OverlayLab, docker: Docker): Promise<Path[]> {
  const [here, there] = lab.hosts as [OverlayHost, OverlayHost];
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
  const nearVipPid = await servers(lab, near.endpoint.namespacePath, VIP_PORTS);
  const remoteVipPid = await servers(lab, remote.endpoint.namespacePath, VIP_PORTS);
  const meshed = { client: far, host: here.address };
  return [
    { what: 'container, same node', client: from, host: own(near), ports, serverPid: nearPid },
    {
      what: 'virtual address, same node',
      ...{ client: from, host: '10.0.1.2', ports: VIP_PORTS, serverPid: nearVipPid },
      ...{ peer: 'container, same node', ratioMax: SERVICE_RATIO_MAX },
    },
    { what: 'container, other node', client: from, host: own(remote), ports, serverPid: remotePid },
    {
      what: 'virtual address, other node',
      ...{ client: from, host: '10.0.1.3', ports: VIP_PORTS, serverPid: remoteVipPid },
      ...{ peer: 'container, other node', ratioMax: SERVICE_RATIO_MAX },
    },
    { what: 'process of the node, from outside', ...meshed, ports, serverPid: hostPid },
    ...(await dockerPaths(lab, docker, far)),
    ...[
      { where: 'same node', ports: LOCAL_PORTS, serverPid: nearPid },
      { where: 'other node', ports: REMOTE_PORTS, serverPid: remotePid },
    ].map(({ where, ...path }) => ({
      what: `published port, ${where}`,
      ...{ ...meshed, ...path },
      ...{ peer: `Docker's mesh, ${where}`, ratioMax: NOISE },
    })),
  ];
}

/** A port that Docker publishes on its bridge, and ports of a mesh as Docker lays it out. */
async function dockerPaths(lab: OverlayLab, docker: Docker, client: CallableProgram): Promise<Path[]> {
  const [bridge, here, there] = lab.hosts.slice(2) as [OverlayHost, OverlayHost, OverlayHost];
  await docker.import(await buildDemoImage({ name: IMAGE }), IMAGE);
  const published = [`${LOCAL_PORTS[0]}:${SERVE_PORT}`, `${LOCAL_PORTS[1]}:${SINK_PORT}`];
  const pid = await docker.runSleeping(IMAGE, published);
  const containers = layDockerMesh(
    [here, there],
    [
      { published: LOCAL_PORTS[0], target: SERVE_PORT, host: here },
      { published: LOCAL_PORTS[1], target: SINK_PORT, host: here },
      { published: REMOTE_PORTS[0], target: SERVE_PORT, host: there },
      { published: REMOTE_PORTS[1], target: SINK_PORT, host: there },
    ],
  );
  const path = async (what: string, namespacePath: string, host: OverlayHost, ports: Path['ports']) => ({
    what,
    client,
    host: host.address,
    ports,
    serverPid: await servers(lab, namespacePath),
  });
  return [
    await path("Docker's bridge, published port", `/proc/${pid}/ns/net`, bridge, LOCAL_PORTS),
    await path("Docker's mesh, same node", containers.get(here)!, here, LOCAL_PORTS),
    await path("Docker's mesh, other node", containers.get(there)!, here, REMOTE_PORTS),
  ];
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
async function servers(
  lab: OverlayLab,
  namespacePath: string,
  [servePort, sinkPort]: Path['ports'] = [SERVE_PORT, SINK_PORT],
): Promise<number> {
  const [serve, sink] = [
    lab.program(namespacePath, 'connection-load.ts', ['serve', String(servePort)]),
    lab.program(namespacePath, 'connection-load.ts', ['sink', String(sinkPort)]),
  ];
  for (const program of [serve, sink]) {
    const first = await program.line();
    if (first !== 'ready') throw new Error(`connection-load.ts: ${first}`);
  }
  return serve.process.pid!;
}

async function publishAll(lab: OverlayLab, near: Container, remote: Container): Promise<void> {
  const ports = [
    [LOCAL_PORTS[0], near, SERVE_PORT],
    [REMOTE_PORTS[0], remote, SERVE_PORT],
    [LOCAL_PORTS[1], near, SINK_PORT],
    [REMOTE_PORTS[1], remote, SINK_PORT],
  ] as const;
  const published = ports.map(([port, { address }, target]) => ({
    protocol: 'tcp' as const,
    port,
    backends: [{ address, port: target }],
  }));
  for (const { host } of [near, remote])
    await host.apply(ingress.id, ingressState(lab, host, [near, remote], published));
}

async function measureConnections(paths: readonly Path[], rounds: number): Promise<Row[]> {
  const micros = new Map(paths.map(({ what }) => [what, [] as number[]]));
  for (let round = 0; round <= rounds; round++) {
    for (const { what, client, host, ports, serverPid } of paths) {
      const before = threadNanos(serverPid);
      const clientNanos = await client.call<number>('connectOften', {
        host,
        port: ports[0],
        count: CONNECTIONS,
      });
      const nanos = clientNanos + threadNanos(serverPid) - before;
      // The first one warms up.
      if (round > 0) micros.get(what)!.push((nanos / CONNECTIONS) * MICROS_PER_NANO);
    }
  }
  return rowsOf('a connection', 'µs', paths, (what) => percentile(micros.get(what)!, UNDISTURBED));
}

async function measureThroughput(paths: readonly Path[], rounds: number): Promise<Row[]> {
  const gigabits = new Map(paths.map(({ what }) => [what, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    for (const { what, client, host, ports } of paths) {
      const bytes = await client.call<number>('sendFor', { host, port: ports[1], seconds: SEND_SECONDS });
      gigabits.get(what)!.push(bytes / GIGABIT_BYTES);
    }
  }
  return rowsOf('bytes', 'Gbit/s', paths, (what) => median(gigabits.get(what)!));
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
