// Health checks that need nothing in the image: a request or a connection to a port of the container. As a test of a health
// check: ["HTTP", "8080/healthz"], ["TCP", "5432"].

import { invalidField } from './errors.ts';

export interface NetworkProbe {
  readonly kind: 'http' | 'tcp';
  readonly port: number;
  /** Of the request; empty for a connection. */
  readonly path: string;
}

const PORT_MAX = 65_535;
/** Nothing that would end the line of a request. */
const TARGET = /^(?<port>\d{1,5})(?<path>\/[\x21-\x7e]*)?$/;

/** Undefined for tests that run a command or nothing. Throws `invalid-argument` that names the flag. */
export function parseNetworkProbe([kind, ...words]: readonly string[]): NetworkProbe | undefined {
  if (kind !== 'HTTP' && kind !== 'TCP') return undefined;
  const target = words.join(' ');
  const { port = '', path = '' } = TARGET.exec(target)?.groups ?? {};
  const number = Number(port);
  const isPort = number >= 1 && number <= PORT_MAX;
  if (kind === 'TCP') {
    if (!isPort || path !== '')
      throw invalidField('health-tcp', `"${target}" must be a port of the container, as in 5432`);
    return { kind: 'tcp', port: number, path: '' };
  }
  if (!isPort)
    throw invalidField(
      'health-http',
      `"${target}" must be a port and a path of the container, as in 8080/healthz`,
    );
  return { kind: 'http', port: number, path: path === '' ? '/' : path };
}
