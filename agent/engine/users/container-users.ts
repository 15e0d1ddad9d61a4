// Users of containers that are nobody's on the machine. Each such container has ids and a user namespace of its own, and a
// network namespace that belongs to it; the name of its folder says which ids. Folders end with the boot.
//
//   <directory>/<container>@<first id>/user, network    the pinned namespaces

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import { isPinnedNamespace, removeNamespace } from '../../linux/namespace.ts';
import { createUserNamespace, IDS_PER_NAMESPACE, type NamespacePins } from '../../linux/user-namespace.ts';
import type { ProcessUser } from '../containers/spec.ts';
import type { UserMapping } from '../engine.ts';
import { SingleFlight } from '../limiter.ts';
import { freeRange, parseSubordinateIds } from './id-ranges.ts';

// In no id of a container.
const SEPARATOR = '@';
const SUBORDINATE_ID_FILES = ['/etc/subuid', '/etc/subgid'];

export class ContainerUsers {
  readonly #directory: string;
  readonly #firstIds = new Map<string, number>();
  readonly #claims = new SingleFlight<UserMapping>();

  /** `directory` is shared with containerd, and gone with the boot. */
  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o711 });
    for (const name of readdirSync(directory)) {
      const [id = '', firstId] = name.split(SEPARATOR);
      this.#firstIds.set(id, Number(firstId));
    }
  }

  has(id: string): boolean {
    return this.#firstIds.has(id);
  }

  /** The container's, made when there are none. Throws `resource-exhausted` and `failed-precondition`. */
  claim(id: string): Promise<UserMapping> {
    return this.#claims.run(id, () => this.#claim(id));
  }

  async #claim(id: string): Promise<UserMapping> {
    const firstId = this.#firstIds.get(id) ?? freeRange(new Set(this.#firstIds.values()), foreignIds());
    this.#firstIds.set(id, firstId);
    const pins = this.#pins(id, firstId);
    const mapping = { firstId, userNamespace: pins.user, networkNamespace: pins.network };
    if (isPinnedNamespace(pins.user) && isPinnedNamespace(pins.network)) return mapping;
    try {
      // Half of it is left when a process was killed on the way.
      this.#unpin(id, firstId);
      mkdirSync(path.dirname(pins.user), { mode: 0o711 });
      await createUserNamespace(firstId, pins);
    } catch (error) {
      this.release(id);
      throw error;
    }
    return mapping;
  }

  /** Gives the ids back. Nothing happens when the container has none. */
  release(id: string): void {
    const firstId = this.#firstIds.get(id);
    if (firstId === undefined) return;
    this.#unpin(id, firstId);
    this.#firstIds.delete(id);
  }

  #unpin(id: string, firstId: number): void {
    const pins = this.#pins(id, firstId);
    removeNamespace(pins.user);
    removeNamespace(pins.network);
    rmSync(path.dirname(pins.user), { recursive: true, force: true });
  }

  #pins(id: string, firstId: number): NamespacePins {
    const folder = path.join(this.#directory, `${id}${SEPARATOR}${firstId}`);
    return { user: path.join(folder, 'user'), network: path.join(folder, 'network') };
  }
}

/** The machine's id of a container's user or group. Throws `invalid-argument` when the container has no such id. */
export function idOnMachine({ firstId }: Pick<UserMapping, 'firstId'>, id: number, what: string): number {
  if (id < IDS_PER_NAMESPACE) return firstId + id;
  throw new SwarmError(
    'invalid-argument',
    `${what} ${id}: with users of its own (userns), a container has the ids below ${IDS_PER_NAMESPACE}`,
  );
}

/** Throws as `idOnMachine` does when the container does not have all of the ids. */
export function checkIds({ uid, gid, additionalGids }: ProcessUser): void {
  idOnMachine({ firstId: 0 }, uid, 'user');
  for (const group of [gid, ...additionalGids]) idOnMachine({ firstId: 0 }, group, 'group');
}

function foreignIds() {
  return SUBORDINATE_ID_FILES.filter((file) => existsSync(file)).flatMap((file) =>
    parseSubordinateIds(readFileSync(file, 'utf8')),
  );
}
