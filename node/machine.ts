// What this machine is: for the node's description, and for picking the address that others reach it by.

import { readFileSync } from 'node:fs';
import os from 'node:os';
import { normalArchitecture } from '../core/constraint.ts';
import { SwarmError } from '../core/errors.ts';
import type { NodeDescription } from '../core/generated/objects.ts';

export interface EngineFacts {
  readonly version: string;
  readonly runtime: string;
  readonly labels: Readonly<Record<string, string>>;
}

export function describeMachine({ version, runtime, labels }: EngineFacts): NodeDescription {
  return {
    hostname: os.hostname(),
    platform: { os: 'linux', architecture: normalArchitecture(os.machine()) },
    resources: { cpuNanos: os.availableParallelism() * 1e9, memoryBytes: os.totalmem() },
    engineVersion: version,
    engineLabels: labels,
    runtime,
    kernel: os.release(),
    operatingSystem: /^PRETTY_NAME="?(.*?)"?$/m.exec(readOsRelease())?.[1] ?? 'Linux',
  };
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
 * The address that other nodes are to use: `wanted` (an address or an interface's name), else that of the interface
 * with the default route, else the only one, else loopback for a machine without network.
 */
export function chooseAdvertiseAddress(wanted: string): string {
  const interfaces = Object.entries(os.networkInterfaces()).map(([name, addresses]) => ({
    name,
    address: addresses?.find(({ family, internal }) => family === 'IPv4' && !internal)?.address,
  }));
  if (wanted !== '') {
    const host = wanted.replace(/:\d+$/, '');
    const named = interfaces.find(({ name }) => name === host);
    if (named?.address !== undefined) return named.address;
    if (/^\d+\.\d+\.\d+\.\d+$/.test(host)) return host;
    throw new SwarmError(
      'invalid-argument',
      `advertise-addr: "${wanted}" is neither an IPv4 address nor an interface with one`,
    );
  }
  const usable = interfaces.filter(({ address }) => address !== undefined);
  const byRoute = usable.find(({ name }) => name === defaultRouteInterface());
  const [only] = usable;
  if (byRoute?.address !== undefined) return byRoute.address;
  if (usable.length > 1)
    throw new SwarmError(
      'invalid-argument',
      `advertise-addr: this machine has several addresses (${usable.map(({ address, name }) => `${address} on ${name}`).join(', ')})`,
      {
        hint: 'Name the one that other nodes are to use: --advertise-addr ADDRESS',
      },
    );
  return only?.address ?? '127.0.0.1';
}

function defaultRouteInterface(): string | undefined {
  const rows = readFileSync('/proc/net/route', 'utf8').split('\n').slice(1);
  return rows.map((row) => row.split('\t')).find(([, destination]) => destination === '00000000')?.[0];
}
