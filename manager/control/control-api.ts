// The control service: one handler per RPC, each a line or two on top of the file of its kind of object.

import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import type { RandomBytes } from '../../core/ids.ts';
import { validateNodeSpec } from '../../core/validate-spec.ts';
import type { ControlService, UpdateNodeRequest, UpdateNodeResponse } from '../../proto/generated/control.ts';
import type { Handlers } from '../../rpc/server.ts';
import type { LogBroker } from '../log-broker.ts';
import type { Store } from '../store/store.ts';
import { explain } from './explain.ts';
import { findNode, findService } from './find.ts';
import { serviceLogs } from './logs-api.ts';
import {
  createService,
  listServices,
  listTasks,
  removeService,
  updateService,
  watchService,
} from './service-api.ts';

export interface ControlOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly logBroker: LogBroker;
  /** The bytes of a backup file. */
  readonly backup: () => AsyncIterable<Uint8Array>;
}

export function controlHandlers({
  store,
  clock,
  randomBytes,
  logBroker,
  backup,
}: ControlOptions): Handlers<typeof ControlService> {
  return {
    getCluster: () => {
      const [cluster] = store.view.cluster.values();
      if (cluster === undefined) throw new SwarmError('unavailable', 'the cluster is still being created');
      const nodes = [...store.view.node.values()];
      return {
        cluster,
        nodes: nodes.length,
        managers: nodes.filter((node) => node.role === 'manager').length,
      };
    },
    listNodes: () => ({ nodes: [...store.view.node.values()] }),
    updateNode: (request) => updateNode(store, request),
    createService: ({ spec }) => createService(store, spec, randomBytes),
    updateService: (request) => updateService(store, request, clock.nowMs()),
    removeService: async ({ service }) => ({ serviceId: await removeService(store, service) }),
    getService: ({ service }) => ({ service: findService(store.view, service) }),
    listServices: () => listServices(store.view),
    async *listTasks(request) {
      yield* listTasks(store.view, request);
    },
    watchService: ({ serviceId }, { signal }) => watchService(store, serviceId, signal),
    serviceLogs: (request, { signal }) => serviceLogs(store, logBroker, request, signal),
    async *backup() {
      for await (const data of backup()) yield { data };
    },
    explain: ({ target }) => explain(store.view, target, clock.nowMs()),
  };
}

async function updateNode(
  store: Store,
  { nodeId, version, spec }: UpdateNodeRequest,
): Promise<UpdateNodeResponse> {
  validateNodeSpec(spec);
  const id = await store.update((tx) => {
    const node = findNode(tx.view, nodeId);
    if (spec.desiredRole !== node.spec.desiredRole)
      throw new SwarmError('unimplemented', 'role: changing the role of a node is not supported yet');
    tx.update('node', { ...node, spec }, version);
    return node.id;
  });
  return { node: findNode(store.view, id) };
}
