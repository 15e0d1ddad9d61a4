// `--publish`: Docker's short syntax ("8080:80/udp", ranges, an address before it) and long syntax ("target=80,…"). Pure.

import { emptyPortConfig, type PortConfig, type PortProtocol } from '../../core/generated/objects.ts';
import { parseAddress } from '../../core/ip-address.ts';
import { oneOf } from './units.ts';
import { splitCsv, splitKeyValue } from './words.ts';

const parseProtocol = oneOf('tcp', 'udp', 'sctp');
const parseMode = oneOf('ingress', 'host');
const parseLocality = oneOf('any', 'prefer', 'only');
const PORT_MAX = 65535;

export function parsePublish(text: string): PortConfig[] {
  return text.includes('=') ? [parseLong(text)] : parseShort(text);
}

/** What `--publish-rm` names: a target port and its protocol. */
export function parseTargetPort(text: string): Pick<PortConfig, 'targetPort' | 'protocol'> {
  if (text.includes('=') || text.includes(':')) {
    const [port] = parsePublish(text);
    if (port !== undefined) return { targetPort: port.targetPort, protocol: port.protocol };
  }
  const { ports, protocol } = splitProtocol(text);
  return { targetPort: parsePort('target port', ports), protocol };
}

function parseLong(text: string): PortConfig {
  let targetPort: number | undefined;
  const port = { ...emptyPortConfig } as {
    -readonly [K in keyof PortConfig]: PortConfig[K];
  };
  for (const field of splitCsv(text)) {
    const { key, value = '' } = splitKeyValue(field);
    switch (key.trim().toLowerCase()) {
      case 'protocol':
        port.protocol = named('protocol', value.toLowerCase(), parseProtocol);
        break;
      case 'mode':
        port.publishMode = named('mode', value.toLowerCase(), parseMode);
        break;
      case 'target':
        targetPort = parsePort('target port', value);
        break;
      case 'published':
        port.publishedPort = value === '0' ? 0 : parsePort('published port', value);
        break;
      case 'address':
        port.hostAddress = parseHostAddress(value);
        break;
      case 'interface':
        port.hostInterface = value;
        break;
      case 'local':
        port.locality = named('local', value.toLowerCase(), parseLocality);
        break;
      default:
        throw new Error(
          `unknown key "${key}"; known are mode, target, published, protocol, address, interface and local`,
        );
    }
  }
  if (targetPort === undefined) throw new Error('target is missing: target=PORT[,published=PORT]');
  return { ...port, targetPort };
}

function named<T>(key: string, value: string, parse: (text: string) => T): T {
  try {
    return parse(value);
  } catch (error) {
    throw new Error(`${key} "${value}" ${(error as Error).message}`);
  }
}

/** "[ADDRESS:][PUBLISHED]:TARGET" or "TARGET". */
function parseShort(text: string): PortConfig[] {
  const { ports, protocol } = splitProtocol(text);
  const parts = /^(?:(?<address>\[[^\]]+\]|[^:]+):)?(?<published>[^:]*):(?<target>[^:]*)$/.exec(
    ports,
  )?.groups;
  if (parts === undefined && ports.includes(':'))
    throw new Error('must be [ADDRESS:]PUBLISHED:TARGET, an IPv6 address in [brackets]');
  const target = parseRange('target port', parts?.['target'] ?? ports);
  const published = parts?.['published'] ? parseRange('published port', parts['published']) : [];
  if (published.length > 0 && published.length !== target.length)
    throw new Error('the ranges of published and target ports must have the same length');
  const hostAddress = parts?.['address'] === undefined ? '' : parseHostAddress(parts['address']);
  return target.map((targetPort, index) => ({
    ...emptyPortConfig,
    protocol,
    targetPort,
    publishedPort: published[index] ?? 0,
    hostAddress,
  }));
}

/** With or without brackets. */
function parseHostAddress(text: string): string {
  const address = text.replace(/^\[(.*)\]$/, '$1');
  if (parseAddress(address) === undefined) throw new Error(`address "${text}" must be an IP address`);
  return address;
}

function splitProtocol(text: string): { ports: string; protocol: PortProtocol } {
  const slash = text.indexOf('/');
  if (slash < 0) return { ports: text, protocol: 'tcp' };
  return {
    ports: text.slice(0, slash),
    protocol: named('protocol', text.slice(slash + 1).toLowerCase(), parseProtocol),
  };
}

function parseRange(what: string, text: string): number[] {
  const [first = '', last = first, ...more] = text.split('-');
  const start = parsePort(what, first);
  const end = parsePort(what, last);
  if (more.length > 0 || end < start) throw new Error(`${what} "${text}" is no range`);
  return Array.from({ length: end - start + 1 }, (_, index) => start + index);
}

function parsePort(what: string, text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > PORT_MAX)
    throw new Error(`${what} "${text}" must be from 1 to ${PORT_MAX}`);
  return port;
}
