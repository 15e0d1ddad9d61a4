// Marks the tasks that their node may not keep. Waits and writes; planEvictions decides, and the service loop replaces.

import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../core/clock.ts';
import { isSamePlace } from '../../core/eligible-node.ts';
import type { Node, Task } from '../../core/generated/objects.ts';
import { runLoop } from '../loop.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { planEvictions } from './plan-evictions.ts';

export interface EvictionOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runEvictionLoop(options: EvictionOptions, signal: AbortSignal): Promise<void> {
  const { store } = options;
  const dirty = new Set<string>([...store.view.node.values()].map(({ id }) => id));
  const pass = async () => {
    const ids = [...dirty];
    dirty.clear();
    try {
      await store.batch(ids.map((id) => (tx: Transaction) => evict(tx, id)));
    } catch (error) {
      for (const id of ids) dirty.add(id);
      throw error;
    }
    return undefined;
  };
  const isRelevant = ({ decisive }: FreshCommit) => {
    const before = dirty.size;
    for (const { kind, action, object, previous } of decisive) {
      if (kind === 'task' && hasTakenOn(object as Task, previous as Task | undefined))
        dirty.add((object as Task).nodeId);
      if (kind === 'node' && action !== 'removed' && hasChanged(object as Node, previous as Node | undefined))
        dirty.add(object.id);
    }
    return dirty.size > before;
  };
  return runLoop({ name: 'eviction', isRelevant, pass, ...options }, signal);
}

/** Another spec, with reservations for which its node had room: in the same moment that may have been given away. */
function hasTakenOn({ nodeId, specVersion }: Task, previous: Task | undefined): boolean {
  return previous !== undefined && nodeId !== '' && specVersion !== previous.specVersion;
}

/** Anything that constraints look at, its resources, or whether it takes tasks. */
function hasChanged(node: Node, previous: Node | undefined): boolean {
  if (previous === undefined || !isSamePlace(node, previous)) return true;
  const partsOf = ({ description: { resources, genericResources } }: Node) => [resources, genericResources];
  return !isDeepStrictEqual(partsOf(node), partsOf(previous));
}

function evict(tx: Transaction, nodeId: string): void {
  const node = tx.view.node.get(nodeId);
  if (node === undefined) return;
  for (const { task, reason } of planEvictions(tx.view, node))
    tx.update('task', { ...task, eviction: reason, leavesLast: false });
}
