// A container's program in the tests of the overlay. It serves ports 80 and 81 on TCP and UDP, telling "SERVER CLIENT" addresses
// to each connection and datagram and echoing what it gets, and answers calls: asks others the same. Its arguments are the
// addresses by which it calls itself to datagrams, of IPv4 and of IPv6.

import { createSocket, type RemoteInfo } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { createConnection, createServer, isIPv6, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { answerCalls } from './answer-calls.ts';

const PORT = 80;
const OTHER_PORT = 81;
const OWN_PORTS_FIRST = 40_001;
const OWN_PORTS = 200;
/** So many programs of one machine have different ones, as their process ids follow one another. */
const OWN_PORTS_OF = 100;
const ANSWER_TIMEOUT_MS = 3000;

interface Target {
  readonly host: string;
  readonly port?: number;
}

interface Report {
  requests: number;
  readonly failures: Record<string, number>;
  readonly servers: Record<string, number>;
}

for (const port of [PORT, OTHER_PORT]) await serve(port);

const connections = new Map<string, Socket>();
const datagrams = createSocket('udp4');
const ipv6Datagrams = createSocket('udp6');
let ownPorts = 0;
/** Answers to datagrams wait for `until`; `found` is told of each. */
let held: { readonly until: Promise<void>; readonly release: () => void; found: () => void } | undefined;
let isLoading = false;
let report: Report = { requests: 0, failures: {}, servers: {} };
let loading: Promise<void> | undefined;

async function serve(port: number): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.write(`${plain(socket.localAddress)} ${plain(socket.remoteAddress)}\n`);
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(port, '::', resolve));
  await serveDatagrams(port, 'udp4', process.argv[2] || networkInterfaces()['eth0']?.[0]?.address);
  await serveDatagrams(port, 'udp6', process.argv[3]);
}

function serveDatagrams(port: number, type: 'udp4' | 'udp6', address: string | undefined): Promise<void> {
  const own = createSocket({ type, ipv6Only: type === 'udp6' });
  own.on('message', async (message, from) => {
    held?.found();
    await held?.until;
    own.send(`${address} ${from.address} ${message}`, from.port, from.address);
  });
  return new Promise((resolve) => own.bind(port, resolve));
}

/** IPv4 addresses as they are, where a socket of both families has them in another form. */
function plain(address = ''): string {
  return address.replace(/^::ffff:/, '');
}

/** What comes first from the socket: a line, or why there is none. */
function answerOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once('data', (data) => resolve(data.toString().trim()));
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.once('close', () => resolve('closed'));
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => resolve('silence'));
  });
}

async function ask({ protocol, ...target }: Target & { protocol: 'tcp' | 'udp' }): Promise<string> {
  if (protocol === 'tcp') {
    const socket = createConnection({ port: PORT, ...target });
    const answer = await answerOf(socket);
    socket.destroy();
    return answer;
  }
  return askByDatagram(createSocket(isIPv6(target.host) ? 'udp6' : 'udp4'), target, true);
}

/** Of a socket of its own: were it chance, a question could belong to the flow of an earlier one. */
function nextOwnPort(): number {
  return OWN_PORTS_FIRST + (process.pid % OWN_PORTS_OF) * OWN_PORTS + (ownPorts++ % OWN_PORTS);
}

/** An answer counts when it comes from where the question went. */
function askByDatagram(
  socket: typeof datagrams,
  { host, port = PORT }: Target,
  isOwn: boolean,
): Promise<string> {
  return new Promise((resolve) => {
    const end = (answer: string): void => {
      clearTimeout(timer);
      socket.off('message', read);
      socket.off('error', fail);
      if (isOwn) socket.close();
      resolve(answer);
    };
    const read = (message: Buffer, from: RemoteInfo): void => {
      if (from.address === host && from.port === port) end(message.toString().trim());
    };
    const timer = setTimeout(() => end('silence'), ANSWER_TIMEOUT_MS / 3);
    socket.on('message', read);
    const fail = (error: NodeJS.ErrnoException): void => end(error.code ?? error.message);
    socket.on('error', fail);
    if (isOwn) {
      socket.bind(nextOwnPort());
      // Only a connected socket hears that it was refused.
      socket.connect(port, host, () => socket.send(''));
    } else socket.send('', port, host);
  });
}

/** Holds back the answers to datagrams until `release`. */
async function hold(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  held = { until: promise, release: resolve, found: () => {} };
}

/** Until there is one to be held back. */
function untilHeld(): Promise<void> {
  return new Promise((resolve) => {
    held!.found = resolve;
  });
}

async function release(): Promise<void> {
  held!.release();
  held = undefined;
}

async function open({ name, ...target }: Target & { name: string }): Promise<string> {
  const socket = createConnection({ port: PORT, ...target });
  socket.on('error', () => undefined);
  connections.set(name, socket);
  return answerOf(socket);
}

/** What each of these hosts answers to a connection, and to a datagram, all from one port at the same time. */
async function askAllFromOnePort({ hosts, port }: { hosts: string[]; port: number }): Promise<string[]> {
  const localPort = 40_000;
  const sockets = hosts.map((host) => createConnection({ host, port, localPort }));
  const answers = await Promise.all(sockets.map(answerOf));
  for (const socket of sockets) socket.destroy();
  const asked = hosts.map((host) => askByDatagram(datagrams, { host, port }, false));
  return [...answers, ...(await Promise.all(asked))];
}

async function send({ name, text }: { name: string; text: string }): Promise<string> {
  const socket = connections.get(name)!;
  if (socket.destroyed) return 'closed';
  socket.write(`${text}\n`);
  return answerOf(socket);
}

/** New connections one after another until `stopLoad`. */
async function startLoad(target: Target): Promise<void> {
  isLoading = true;
  loading = load(target);
}

async function load(target: Target): Promise<void> {
  report = { requests: 0, failures: {}, servers: {} };
  while (isLoading) {
    const answer = await ask({ protocol: 'tcp', ...target });
    report.requests++;
    const [server = '', client] = answer.split(' ');
    const counts = client === undefined ? report.failures : report.servers;
    counts[server] = (counts[server] ?? 0) + 1;
    await setImmediate();
  }
}

async function stopLoad(): Promise<Report> {
  isLoading = false;
  await loading;
  return report;
}

async function resolve({ name, type }: { name: string; type: string }): Promise<unknown> {
  const resolver = new Resolver({ timeout: 1000, tries: 2 });
  resolver.setServers(['127.0.0.11']);
  try {
    return type === 'PTR' ? await resolver.reverse(name) : await resolver.resolve(name, type);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

await answerCalls({
  hold,
  untilHeld,
  release,
  ask,
  /** From one socket, so that all of them are one flow. */
  askAgain: (target: Target) => askByDatagram(isIPv6(target.host) ? ipv6Datagrams : datagrams, target, false),
  askAllFromOnePort,
  open,
  send,
  startLoad,
  loadReport: async () => report,
  stopLoad,
  resolve,
});
