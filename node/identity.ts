// Who this node is in which cluster: written when it becomes a member, gone when it leaves. What proves it is in
// certificate-files.ts.

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { messageOf, SwarmError } from '../core/errors.ts';
import { newId } from '../core/ids.ts';
import { chooseAddresses } from './machine.ts';

export interface Identity {
  readonly nodeId: string;
  readonly clusterId: string;
  /** host:port by which others reach this node; the port counts on managers. */
  readonly advertiseAddress: string;
  /** host:port that a manager listens on. */
  readonly listenAddress: string;
  /** Host for the traffic between containers. */
  readonly dataPathAddress: string;
  /** host:port of the cluster's managers, as last heard. */
  readonly managers: readonly string[];
  /** Where its cluster's state lies. */
  readonly store: 'raft' | 'etcd';
  /** It became a member but was never told so: what it has is of no use to anybody. */
  readonly isUnfinished?: boolean;
}

const FILE = 'node.json';

/** The first node of a new cluster. Throws what `chooseAddresses` throws. */
export function newIdentity(
  addresses: Parameters<typeof chooseAddresses>[0],
  store: Identity['store'],
): Identity {
  return {
    nodeId: newId(randomBytes),
    clusterId: newId(randomBytes),
    ...chooseAddresses(addresses),
    managers: [],
    store,
  };
}

/** Undefined when this node is in no cluster. */
export function readIdentity(dataRoot: string): Identity | undefined {
  const file = path.join(dataRoot, FILE);
  if (!existsSync(file)) return undefined;
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Identity;
  } catch (error) {
    throw new SwarmError('internal', `${file} cannot be read: ${messageOf(error)}`, {
      hint: 'Restore it from a backup, or remove it to leave the cluster.',
    });
  }
}

export function writeIdentity(dataRoot: string, identity: Identity): void {
  writeWhole(path.join(dataRoot, FILE), JSON.stringify(identity, undefined, 2));
}

export function deleteIdentity(dataRoot: string): void {
  rmSync(path.join(dataRoot, FILE), { force: true });
}

/** Names this machine's engine; made at its first start and kept for good. */
export function engineId(dataRoot: string): string {
  const file = path.join(dataRoot, 'engine-id');
  if (existsSync(file)) return readFileSync(file, 'utf8').trim();
  // Short: it becomes part of interface names, which Linux limits to 15 characters.
  const id = newId(randomBytes).slice(0, 8);
  writeWhole(file, `${id}\n`);
  return id;
}

/** Nobody ever sees half of it. */
export function writeWhole(file: string, content: string): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o711 });
  writeFileSync(`${file}.tmp`, content, { mode: 0o600, flush: true });
  renameSync(`${file}.tmp`, file);
}
