// Asks a port of a container from inside its network, as a health check does that needs no program in the image. Sockets
// belong to the namespace in which they are made, whoever uses them.

import { once } from 'node:events';
import { request } from 'node:http';
import { Socket } from 'node:net';
import { messageOf } from '../../../core/errors.ts';
import type { NetworkProbe } from '../../../core/network-probe.ts';
import { withinNamespace } from '../../linux/namespace.ts';
import { openIpv4Socket } from '../../linux/sockets.ts';
import type { ProbeLimits } from '../engine.ts';

const LOOPBACK = '127.0.0.1';
/** Answers from here on are failures, as orchestrators and load balancers have it. */
const BAD_STATUS = 400;

/** What is wrong; undefined when the answer is good. `pid` is of a process of the container. Rejects when aborted. */
export async function probeContainer(
  pid: number,
  { kind, port, path }: NetworkProbe,
  { timeoutMs, signal }: ProbeLimits,
): Promise<string | undefined> {
  const limit = AbortSignal.timeout(timeoutMs);
  const either = AbortSignal.any([signal, limit]);
  const fd = withinNamespace(`/proc/${pid}/ns/net`, () => openIpv4Socket('stream'));
  const socket = new Socket({ fd, readable: true, writable: true });
  try {
    socket.connect({ host: LOOPBACK, port });
    await once(socket, 'connect', { signal: either });
    return kind === 'http' ? await askOver(socket, port, path, either) : undefined;
  } catch (error) {
    signal.throwIfAborted();
    return `port ${port}: ${limit.aborted ? `no answer within ${timeoutMs} ms` : messageOf(error)}`;
  } finally {
    // What comes after the answer, or too late for it, is nobody's business.
    socket.on('error', () => {}).destroy();
  }
}

async function askOver(
  socket: Socket,
  port: number,
  path: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const call = request({
    ...{ host: LOOPBACK, port, path, signal },
    headers: { 'user-agent': 'tsswarm-health', connection: 'close' },
    // Counts only as long as there is no agent, which would connect from here.
    createConnection: () => socket,
  });
  call.end();
  const [response] = await once(call, 'response', { signal });
  const { statusCode = 0 } = response;
  return statusCode < BAD_STATUS ? undefined : `GET ${path} on port ${port}: status ${statusCode}`;
}
