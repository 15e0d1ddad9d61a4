// What must outlive this process, as small JSON files: how the network was laid out, and one file per endpoint.
// An endpoint's file is its commit mark: what the kernel holds without one is half-made and is taken down.
// Endpoints' files lie in the run directory: at the end of the boot the kernel forgets what they describe. The network's
// is renamed into place but not synced to disk; lost or broken it counts as absent.

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PortConfig } from '../../core/generated/objects.ts';

export interface NetworkRecord {
  /** "10.186.0.0/16" */
  readonly subnet: string;
  /** The /31 between host and network. */
  readonly link: string;
  readonly addressesReservedUntil: number;
  /** This network switched the host's forwarding on, which was off. */
  readonly enabledForwarding: boolean;
}

export interface EndpointRecord {
  readonly id: string;
  readonly address: string;
  /** Where the network had IPv6 when the endpoint was made. */
  readonly ipv6Address?: string;
  readonly ports: readonly PortConfig[];
  readonly drained: boolean;
  /** Of a further link: the caller's namespace. */
  readonly namespacePath?: string;
}

const NETWORK_FILE = 'network.json';
const ENDPOINTS_FOLDER = 'endpoints';
const SUFFIX = '.json';

export class Records {
  readonly #stateDir: string;
  readonly #endpointsDir: string;

  constructor(stateDir: string, runDir: string) {
    this.#stateDir = stateDir;
    this.#endpointsDir = join(runDir, ENDPOINTS_FOLDER);
  }

  createFolders(): void {
    mkdirSync(this.#stateDir, { recursive: true, mode: 0o700 });
    mkdirSync(this.#endpointsDir, { recursive: true, mode: 0o700 });
  }

  readNetwork(): NetworkRecord | undefined {
    return readRecord(join(this.#stateDir, NETWORK_FILE), isNetworkRecord);
  }

  writeNetwork(record: NetworkRecord): void {
    writeRecord(join(this.#stateDir, NETWORK_FILE), record);
  }

  readEndpoints(): EndpointRecord[] {
    return readdirSync(this.#endpointsDir).flatMap((name) => {
      if (!name.endsWith(SUFFIX)) return [];
      const record = readRecord(join(this.#endpointsDir, name), isEndpointRecord);
      return record === undefined || `${record.id}${SUFFIX}` !== name ? [] : [record];
    });
  }

  writeEndpoint(record: EndpointRecord): void {
    writeRecord(join(this.#endpointsDir, record.id + SUFFIX), record);
  }

  removeEndpoint(id: string): void {
    rmSync(join(this.#endpointsDir, id + SUFFIX), { force: true });
  }

  removeAll(): void {
    rmSync(this.#endpointsDir, { recursive: true, force: true });
    rmSync(join(this.#stateDir, NETWORK_FILE), { force: true });
  }
}

function writeRecord(path: string, record: NetworkRecord | EndpointRecord): void {
  const draft = `${path}.new`;
  writeFileSync(draft, JSON.stringify(record), { mode: 0o600 });
  renameSync(draft, path);
}

function readRecord<T>(path: string, isRecord: (value: unknown) => value is T): T | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return isRecord(value) ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function isNetworkRecord(value: unknown): value is NetworkRecord {
  const record = value as Partial<NetworkRecord> | null;
  return (
    typeof record?.subnet === 'string' &&
    typeof record.link === 'string' &&
    typeof record.addressesReservedUntil === 'number' &&
    typeof record.enabledForwarding === 'boolean'
  );
}

function isEndpointRecord(value: unknown): value is EndpointRecord {
  const record = value as Partial<EndpointRecord> | null;
  return (
    typeof record?.id === 'string' &&
    typeof record.address === 'string' &&
    typeof record.drained === 'boolean' &&
    ['string', 'undefined'].includes(typeof record.ipv6Address) &&
    ['string', 'undefined'].includes(typeof record.namespacePath) &&
    Array.isArray(record.ports)
  );
}
