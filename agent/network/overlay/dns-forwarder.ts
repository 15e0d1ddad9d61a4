// Questions about the world outside, passed on to the name servers of the host: in the host's namespace, by the
// protocol that the container used. Each question has a socket, and so a port, of its own: answers cannot be guessed.

import { createSocket } from 'node:dgram';
import { createConnection, isIPv6 } from 'node:net';
import { FrameReader, frame } from './dns-frame.ts';

const DNS_PORT = 53;
const ANSWER_TIMEOUT_MS = 2000;
/** Beyond, containers are told at once that it did not work. */
const QUESTIONS_MAX = 512;
const ID_BYTES = 2;

export class Forwarder {
  readonly #servers: () => readonly string[];
  #open = 0;

  /** `servers` are asked one after another. */
  constructor(servers: () => readonly string[]) {
    this.#servers = servers;
  }

  /** undefined when nobody answers. `servers` are asked in place of the host's. */
  async ask(query: Buffer, transport: 'udp' | 'tcp', servers = this.#servers()): Promise<Buffer | undefined> {
    if (this.#open >= QUESTIONS_MAX) return undefined;
    this.#open++;
    try {
      for (const server of servers) {
        const answer = await (transport === 'udp' ? askByUdp(query, server) : askByTcp(query, server));
        if (answer !== undefined) return answer;
      }
      return undefined;
    } finally {
      this.#open--;
    }
  }
}

function askByUdp(query: Buffer, server: string): Promise<Buffer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4');
  const timer = setTimeout(() => resolve(undefined), ANSWER_TIMEOUT_MS);
  socket.on('message', (answer) => {
    if (isAnswerTo(query, answer)) resolve(answer);
  });
  // Nobody listens there, or no way leads there: the next server may do better.
  socket.on('error', () => resolve(undefined));
  socket.connect(DNS_PORT, server, () => socket.send(query));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.close();
  });
}

function askByTcp(query: Buffer, server: string): Promise<Buffer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const reader = new FrameReader();
  const socket = createConnection({ host: server, port: DNS_PORT }, () => socket.write(frame(query)));
  const timer = setTimeout(() => resolve(undefined), ANSWER_TIMEOUT_MS);
  socket.on('data', (data) => {
    const answer = reader.push(data).find((message) => isAnswerTo(query, message));
    if (answer !== undefined) resolve(answer);
  });
  socket.on('error', () => resolve(undefined));
  socket.on('close', () => resolve(undefined));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

function isAnswerTo(query: Buffer, answer: Buffer): boolean {
  return answer.subarray(0, ID_BYTES).equals(query.subarray(0, ID_BYTES));
}
