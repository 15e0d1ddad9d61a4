// Serves /metrics: what this process knows, followed by what the manager says of itself.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Gauge, Registry } from 'prom-client';
import { messageOf, SwarmError } from '../core/errors.ts';
import { nodeLog } from './log.ts';

/** Each gives Prometheus text; one that fails is left out and logged. */
export type MetricsSource = () => Promise<string>;

/** Listens on "HOST:PORT". Throws `failed-precondition` when the address is taken. */
export async function serveMetrics(address: string, sources: readonly MetricsSource[]): Promise<Server> {
  const separator = address.lastIndexOf(':');
  const host = address.slice(0, separator).replace(/^\[|\]$/g, '');
  const port = Number(address.slice(separator + 1));
  const server = createServer((request, response) => {
    if (request.url !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('only /metrics is here\n');
      return;
    }
    collect(sources).then(
      (body) =>
        response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(body),
      (error) => response.writeHead(500).end(messageOf(error)),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new SwarmError(
          'failed-precondition',
          `metrics-addr: cannot listen on ${address}: ${error.code ?? error.message}`,
          {
            hint: 'Another program holds the port: choose another with --metrics-addr HOST:PORT.',
            cause: error,
          },
        ),
      ),
    );
    server.listen(port, host || undefined, resolve);
  });
  return server;
}

/** "HOST:PORT" as it came to be: port 0 asks for a free one. */
export function addressOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo;
  return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
}

async function collect(sources: readonly MetricsSource[]): Promise<string> {
  const texts = await Promise.all(
    sources.map((source) =>
      source().catch((error: unknown) => {
        nodeLog.warn({ error: messageOf(error) }, 'metrics of one part are missing');
        return '';
      }),
    ),
  );
  return texts.join('');
}

export interface NodeFacts {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly isManager: boolean;
  /** Unix milliseconds; 0 without a certificate. */
  readonly certificateExpiresAtMs: number;
  /** What does not work at the moment, as `tsswarm info` says it; empty: everything does. */
  readonly problem: string;
}

/** The facts about the node itself, in Swarm's names where it has some. */
export function nodeMetrics(facts: () => NodeFacts): Registry {
  const registry = new Registry();
  new Gauge({
    name: 'tsswarm_node_certificate_expires_timestamp_seconds',
    help: 'When the certificate of this node expires; absent without one.',
    registers: [registry],
    collect() {
      this.reset();
      const { certificateExpiresAtMs } = facts();
      if (certificateExpiresAtMs > 0) this.set(certificateExpiresAtMs / 1000);
    },
  });
  new Gauge({
    name: 'tsswarm_node_problem',
    help: '1 while something does not work on this node; "tsswarm info" says what.',
    registers: [registry],
    collect() {
      this.set(facts().problem === '' ? 0 : 1);
    },
  });
  new Gauge({
    name: 'swarm_node_info',
    help: 'The cluster and node of this machine.',
    labelNames: ['swarm_id', 'node_id'],
    registers: [registry],
    collect() {
      this.reset();
      const { clusterId, nodeId } = facts();
      if (nodeId !== '') this.set({ swarm_id: clusterId, node_id: nodeId }, 1);
    },
  });
  new Gauge({
    name: 'swarm_node_manager',
    help: 'Whether this node is a manager.',
    registers: [registry],
    collect() {
      this.set(facts().isManager ? 1 : 0);
    },
  });
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the daemon.',
    registers: [registry],
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  return registry;
}
