// What this machine is: for the node's description, and for picking the address that others reach it by.

import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import os from 'node:os';
import { CLUSTER_PORT, formatHostPort, parseHostPort } from '../core/addresses.ts';
import { normalArchitecture } from '../core/constraint.ts';
import { SwarmError } from '../core/errors.ts';
import type { NodeDescription } from '../core/generated/objects.ts';
import { parseGenericResources } from '../core/generic-resource.ts';
import type { DaemonConfig } from './config.ts';
import type { Identity } from './identity.ts';

const ANY = { host: '0.0.0.0', port: CLUSTER_PORT };

export interface EngineFacts {
  readonly version: string;
  readonly runtime: string;
}

export function describeMachine(
  { version, runtime }: EngineFacts,
  config: Pick<DaemonConfig, 'label' | 'node-generic-resource'>,
): Omit<NodeDescription, 'trust' | 'dataPathMtu' | 'tunnelKey'> {
  return {
    hostname: os.hostname(),
    platform: { os: 'linux', architecture: normalArchitecture(os.machine()) },
    resources: { cpuNanos: os.availableParallelism() * 1e9, memoryBytes: os.totalmem() },
    genericResources: parseGenericResources(config['node-generic-resource']),
    engineVersion: version,
    engineLabels: Object.fromEntries(
      config.label.map((entry) => [entry.split('=')[0] ?? '', entry.slice(entry.indexOf('=') + 1)]),
    ),
    runtime,
    kernel: os.release(),
    operatingSystem: /^PRETTY_NAME="?(.*?)"?$/m.exec(readOsRelease())?.[1] ?? 'Linux',
  };
}

/** Of the interface with this address; 0 when there is none. */
export function mtuOf(address: string): number {
  const found = Object.entries(os.networkInterfaces()).find(([, addresses]) =>
    addresses?.some((candidate) => candidate.address === address),
  );
  if (found === undefined) return 0;
  try {
    return Number(readFileSync(`/sys/class/net/${found[0]}/mtu`, 'utf8'));
  } catch {
    // It went away meanwhile, or /sys shows another network namespace: what it carries is not known.
    return 0;
  }
}

function readOsRelease(): string {
  try {
    return readFileSync('/etc/os-release', 'utf8');
  } catch {
    // Not every system has the file; the name is for people only.
    return '';
  }
}

/**
 * The host that other nodes are to use: `wanted` (an address or an interface's name), else that of the interface
 * with the default route, else the only one, else loopback for a machine without network. Throws `invalid-argument` that
 * names the field.
 */
export function chooseHost(wanted: string, field: string): string {
  const interfaces = Object.entries(os.networkInterfaces()).map(([name, addresses]) => ({
    name,
    address: addresses?.find(isUsable)?.address,
  }));
  if (wanted !== '') {
    const named = interfaces.find(({ name }) => name === wanted);
    if (named?.address !== undefined) return named.address;
    if (isIP(wanted)) return wanted;
    throw new SwarmError(
      'invalid-argument',
      `${field}: "${wanted}" is neither an IP address nor an interface with one`,
    );
  }
  const usable = interfaces.filter(({ address }) => address !== undefined);
  const byRoute = usable.find(({ name }) => name === defaultRouteInterface());
  const [only] = usable;
  if (byRoute?.address !== undefined) return byRoute.address;
  if (usable.length > 1)
    throw new SwarmError(
      'invalid-argument',
      `${field}: this machine has several addresses (${usable.map(({ address, name }) => `${address} on ${name}`).join(', ')})`,
      {
        hint: 'Name the one that other nodes are to use: --advertise-addr ADDRESS',
      },
    );
  return only?.address ?? '127.0.0.1';
}

/** The addresses of a node, as an operator gave them; what was not said follows from the rest. */
export function chooseAddresses({
  advertiseAddress,
  listenAddress,
  dataPathAddress,
}: {
  readonly advertiseAddress: string;
  readonly listenAddress: string;
  readonly dataPathAddress: string;
}): Pick<Identity, 'advertiseAddress' | 'listenAddress' | 'dataPathAddress'> {
  const listen = listenAddress === '' ? ANY : parseHostPort(listenAddress, 'listen-addr');
  // Who listens on one address is reached by it.
  const said = advertiseAddress !== '' || listen.host === ANY.host ? advertiseAddress : listen.host;
  const advertised =
    said === '' ? { host: '', port: listen.port } : parseHostPort(said, 'advertise-addr', listen.port);
  const host = chooseHost(advertised.host, 'advertise-addr');
  const listenHost = listen.host === ANY.host ? listen.host : chooseHost(listen.host, 'listen-addr');
  return {
    advertiseAddress: formatHostPort({ host, port: advertised.port }),
    listenAddress: formatHostPort({ host: listenHost, port: listen.port }),
    dataPathAddress: dataPathAddress === '' ? host : chooseHost(dataPathAddress, 'data-path-addr'),
  };
}

/** Link-local addresses (RFC 3927) mean something on their link only, as those of this daemon's own interfaces do. */
function isUsable({ family, internal, address }: os.NetworkInterfaceInfo): boolean {
  return family === 'IPv4' && !internal && !address.startsWith('169.254.');
}

function defaultRouteInterface(): string | undefined {
  const rows = readFileSync('/proc/net/route', 'utf8').split('\n').slice(1);
  return rows.map((row) => row.split('\t')).find(([, destination]) => destination === '00000000')?.[0];
}
