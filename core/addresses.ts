// Addresses as operators write them: a host or an interface, with or without a port.

import { isIPv6 } from 'node:net';
import { SwarmError } from './errors.ts';

/** The port between nodes; Swarm's. */
export const CLUSTER_PORT = 2377;

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address. Throws `invalid-argument` that names the field. */
export function parseHostPort(text: string, field: string, defaultPort: number = CLUSTER_PORT): HostPort {
  if (isIPv6(text)) return { host: text, port: defaultPort };
  const { host, port } = /^(?<host>\[[^\]]+\]|[^:[\]]+)(?::(?<port>\d+))?$/.exec(text)?.groups ?? {};
  const number = port === undefined ? defaultPort : Number(port);
  if (host === undefined || number < 1 || number > 65_535)
    throw new SwarmError(
      'invalid-argument',
      `${field}: ${JSON.stringify(text)} is no address; it has to be HOST or HOST:PORT, as in 10.0.0.1:${defaultPort}`,
    );
  return { host: host.replace(/^\[|\]$/g, ''), port: number };
}

/** `host:port`, with brackets around IPv6. */
export function formatHostPort({ host, port }: HostPort): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}
