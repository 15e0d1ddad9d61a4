// What happens to the objects of the cluster, as operators watch it: what is created, updated and removed, with what about it
// has changed. Changes that nobody asked about (an address that was given, another version of the same state) are left out.

import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../core/clock.ts';
import { hasCode, invalidField, SwarmError } from '../../core/errors.ts';
import type { Config, Network, Node, Secret, Service, Task } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { taskName } from '../../core/task-name.ts';
import type { ClusterEvent, WatchEventsRequest, WatchEventsResponse } from '../../proto/generated/control.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import type { Commit, Store } from '../store/store.ts';
import type { TablesView } from '../store/tables.ts';

export const EVENT_KINDS = ['service', 'node', 'task', 'network', 'secret', 'config'] as const;
type EventKind = (typeof EVENT_KINDS)[number];

/**
 * Begins with a message without events, which says where the log is; a reader whose stream has broken goes on after what it
 * saw. Throws `resource-exhausted` when the reader is so slow, or comes back so late, that events are lost.
 */
export async function* watchEvents(
  { store, clock }: { readonly store: Store; readonly clock: Clock },
  { kinds, after }: WatchEventsRequest,
  signal: AbortSignal,
): AsyncIterable<WatchEventsResponse> {
  const unknown = kinds.find((kind) => !EVENT_KINDS.includes(kind as EventKind));
  if (unknown !== undefined)
    throw invalidField('type', `"${unknown}" must be one of ${EVENT_KINDS.join(', ')}`);
  const wanted = new Set(kinds.length === 0 ? EVENT_KINDS : kinds);
  const ended = new AbortController();
  try {
    const select = ({ index, events }: Commit): WatchEventsResponse | undefined => {
      const shown = events
        .filter(({ kind }) => wanted.has(kind))
        .flatMap((event) => eventOf(store.view, event, clock.nowMs()) ?? []);
      return shown.length > 0 ? { index, events: shown } : undefined;
    };
    const changes = store.watch(AbortSignal.any([signal, ended.signal]), { select, after });
    yield { index: after ?? store.index, events: [] };
    yield* changes;
  } catch (error) {
    if (!hasCode(error, 'resource-exhausted')) throw error;
    throw new SwarmError('resource-exhausted', 'events: this reader is too slow, and has lost some of them', {
      hint: 'Run "tsswarm events" again, for fewer types (--filter type=TYPE) or into a faster reader.',
    });
  } finally {
    ended.abort();
  }
}

/** Undefined: nothing that operators follow. */
export function eventOf(view: TablesView, event: StoreEvent, nowMs: number): ClusterEvent | undefined {
  const { kind, action, object, previous } = event;
  const now = aspectsOf(view, kind as EventKind, object);
  const before = previous && aspectsOf(view, kind as EventKind, previous);
  const changed = Object.keys({ ...before?.facts, ...now.facts }).filter(
    (key) => before !== undefined && before.facts[key] !== now.facts[key],
  );
  if (action === 'updated' && changed.length === 0 && isDeepStrictEqual(before?.spec, now.spec))
    return undefined;
  const attributes = { ...now.attributes };
  for (const key of changed) {
    attributes[`${key}.old`] = before?.facts[key] ?? '';
    attributes[`${key}.new`] = now.facts[key] ?? '';
  }
  return {
    // What is removed does not say when.
    timeMs: action === 'removed' ? nowMs : object.meta.updatedAtMs,
    kind,
    action: ACTIONS[action],
    id: object.id,
    attributes,
  };
}

const ACTIONS = { created: 'create', updated: 'update', removed: 'remove' } as const;

type Texts = Record<string, string>;

interface Aspects {
  readonly attributes: Texts;
  /** Told with what they were when they change. */
  readonly facts: Texts;
  readonly spec?: unknown;
}

function aspectsOf(view: TablesView, kind: EventKind, object: StoreEvent['object']): Aspects {
  switch (kind) {
    case 'service':
      return aspectsOfService(object as Service);
    case 'node':
      return aspectsOfNode(object as Node);
    case 'task':
      return aspectsOfTask(view, object as Task);
    case 'network': {
      const { spec } = object as Network;
      return { attributes: { name: spec.name }, facts: {}, spec };
    }
    case 'secret':
    case 'config': {
      const { spec, latestVersion } = object as Secret | Config;
      return { attributes: { name: spec.name }, facts: { version: String(latestVersion) }, spec };
    }
  }
}

function aspectsOfService({ spec, updateStatus }: Service): Aspects {
  const replicas = isGlobal(spec.mode) ? {} : { replicas: String(wantedReplicas(spec)) };
  const { image } = spec.task.container;
  return {
    attributes: { name: spec.name },
    facts: { ...replicas, image, updatestate: updateStatus?.state ?? '' },
    spec,
  };
}

function aspectsOfNode({ id, spec, status, role, description }: Node): Aspects {
  const held = status.held ? ' (held)' : '';
  return {
    attributes: { name: description.hostname || id },
    facts: { state: `${status.state}${held}`, availability: spec.availability, role },
    spec,
  };
}

function aspectsOfTask(view: TablesView, task: Task): Aspects {
  const { nodeId, serviceId, status } = task;
  const service = view.service.get(serviceId)?.spec.name ?? view.revisionOf(task)?.spec.name ?? serviceId;
  const node = view.node.get(nodeId)?.description.hostname || nodeId;
  const { exitCode } = status.container ?? {};
  const hasEnded = status.state === 'failed' || status.state === 'complete';
  return {
    attributes: {
      name: taskName(service, task),
      service,
      ...(node !== '' && { node }),
      ...(status.error !== '' && { error: status.error }),
      ...(hasEnded && exitCode !== undefined && { exitCode: String(exitCode) }),
    },
    facts: { state: status.state, desiredstate: task.desiredState },
  };
}
