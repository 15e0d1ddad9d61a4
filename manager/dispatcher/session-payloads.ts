// Which versions of secrets and configs, and which credentials for registries, one agent was told of. It gets a version with the first of its tasks that needs
// it, and forgets it with the last; nothing else ever leaves the managers.

import type { FileReference, Revision } from '../../core/generated/objects.ts';
import { isPlaced, isTerminal } from '../../core/task-state.ts';
import type { NodePayload, Payloads } from '../../proto/generated/dispatcher.ts';
import { payloadId, type TablesView } from '../store/tables.ts';

// Of one message; a single version may be larger.
const MESSAGE_BYTES = 1024 * 1024;

export class SessionPayloads {
  readonly #nodeId: string;
  /** What was sent, and whether it was the newest then. */
  readonly #known = new Map<string, boolean>();
  /** What it refers to, so that changes of other things cost nothing. */
  #sources: ReadonlySet<string> = new Set();

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
  }

  refersTo(sourceId: string): boolean {
    return this.#sources.has(sourceId);
  }

  /** Everything that the node's tasks need: the first messages of a session. */
  complete(view: TablesView): Payloads[] {
    this.#known.clear();
    const [first = { complete: true, payloads: [], removedIds: [] }, ...rest] = this.catchUp(view);
    return [{ ...first, complete: true }, ...rest];
  }

  /** What the node's tasks need and the agent does not know yet, and what it no longer needs. */
  catchUp(view: TablesView): Payloads[] {
    const wanted = this.#wanted(view);
    const removedIds = [...this.#known.keys()].filter((id) => !wanted.has(id));
    for (const id of removedIds) this.#known.delete(id);
    const news = [...wanted.values()].filter(({ id, newest }) => this.#known.get(id) !== newest);
    for (const { id, newest } of news) this.#known.set(id, newest);
    const messages = inMessages(news);
    if (removedIds.length === 0) return messages;
    // The old version goes when the new one is there.
    const last = messages.pop() ?? { complete: false, payloads: [], removedIds: [] };
    return [...messages, { ...last, removedIds }];
  }

  #wanted(view: TablesView): Map<string, NodePayload> {
    const wanted = new Map<string, NodePayload>();
    const sources = new Set<string>();
    // Most clusters have none.
    if (view.payload.size === 0) return wanted;
    for (const revision of revisionsOfNode(view, this.#nodeId)) {
      const credentials = credentialsFor(view, revision);
      if (credentials !== undefined) wanted.set(credentials.id, credentials);
      for (const reference of filesOf(revision)) {
        sources.add(reference.sourceId);
        const payload = payloadFor(view, reference);
        if (payload !== undefined) wanted.set(payload.id, payload);
      }
    }
    this.#sources = sources;
    return wanted;
  }
}

/** Of the tasks that have not ended, each once. */
function revisionsOfNode(view: TablesView, nodeId: string): Set<Revision> {
  const revisions = new Set<Revision>();
  for (const task of view.tasksOnNode(nodeId)) {
    const { state } = task.status;
    if (isTerminal(state) || !isPlaced(state)) continue;
    const revision = view.revisionOf(task);
    if (revision !== undefined) revisions.add(revision);
  }
  return revisions;
}

function filesOf({ spec }: Revision): FileReference[] {
  const { secrets, configs } = spec.task.container;
  return [...secrets, ...configs];
}

/** Undefined when it is gone: the agent says so of its task. */
function payloadFor(view: TablesView, { sourceId, version }: FileReference): NodePayload | undefined {
  const source = view.secret.get(sourceId) ?? view.config.get(sourceId);
  if (source === undefined) return undefined;
  const payload = view.payload.get(payloadId(sourceId, version || source.latestVersion));
  if (payload === undefined) return undefined;
  return {
    id: payload.id,
    sourceId,
    version: payload.version,
    newest: payload.version === source.latestVersion,
    templateDriver: source.spec.templateDriver,
    data: payload.data,
  };
}

function credentialsFor(view: TablesView, { id, registryAuth }: Revision): NodePayload | undefined {
  const payload = registryAuth ? view.payload.get(id) : undefined;
  if (payload === undefined) return undefined;
  const { sourceId, version, data } = payload;
  return { id, sourceId, version, newest: false, templateDriver: '', data };
}

function inMessages(payloads: readonly NodePayload[]): Payloads[] {
  const messages: NodePayload[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const payload of payloads) {
    if (bytes + payload.data.length > MESSAGE_BYTES) {
      messages.push([]);
      bytes = 0;
    }
    messages.at(-1)?.push(payload);
    bytes += payload.data.length;
  }
  return messages.map((part) => ({ complete: false, payloads: part, removedIds: [] }));
}
