// The control service: one handler per RPC, each a line or two on top of the file of its kind of object.

import { type Clock, sleep } from '../../core/clock.ts';
import type { RandomBytes } from '../../core/ids.ts';
import type { ControlService, NodeSpare } from '../../proto/generated/control.ts';
import type { Handlers } from '../../rpc/server.ts';
import { theCluster } from '../ca/authority.ts';
import type { CertificateTool } from '../ca/certificate-tool.ts';
import { spareOf } from '../capacity/spare.ts';
import type { Consensus } from '../consensus.ts';
import type { LogBroker } from '../log-broker.ts';
import type { NodeQuestions } from '../node-questions.ts';
import type { ReachBroker } from '../reach-broker.ts';
import type { Store } from '../store/store.ts';
import { getAuthority, getCluster, getJoinTokens, rotateAuthority, updateCluster } from './cluster-api.ts';
import { watchEvents } from './events-api.ts';
import { explain } from './explain.ts';
import { serviceLogs } from './logs-api.ts';
import { createNetwork, getNetwork, listNetworks, removeNetwork, updateNetwork } from './network-api.ts';
import { auditNetworks, traceNetwork } from './network-trace.ts';
import { listNodes, removeNode, updateNode } from './node-api.ts';
import { createPayload, getConfig, getSecret, removePayload, updatePayload } from './payload-api.ts';
import { planServiceRequest } from './plan-request.ts';
import { reach } from './reach-api.ts';
import {
  createService,
  listServices,
  listTasks,
  removeService,
  updateService,
  watchService,
} from './service-api.ts';
import { authorOf, getService, serviceHistory } from './service-history.ts';
import { newTurns } from './turns.ts';

export interface ControlOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly logBroker: LogBroker;
  readonly questions: NodeQuestions;
  readonly reach: ReachBroker;
  readonly tool: CertificateTool;
  /** Absent where managers keep the state elsewhere. */
  readonly consensus: Consensus | undefined;
  readonly leaderAddress: () => string | undefined;
  /** The bytes of a backup file. */
  readonly backup: () => AsyncIterable<Uint8Array>;
}

export function controlHandlers(options: ControlOptions): Handlers<typeof ControlService> {
  const { store, clock, logBroker, backup } = options;
  const withTurns = { ...options, takeTurn: newTurns() };
  return {
    getCluster: () => getCluster(store.view),
    updateCluster: (request) => updateCluster(options, request),
    getJoinTokens: () => getJoinTokens(store.view, options.leaderAddress()),
    getUnlockKey: () => ({ key: theCluster(store.view).secrets.unlockKey }),
    getAuthority: () => getAuthority(store.view),
    rotateAuthority: (request) => rotateAuthority(options, request),
    listNodes: () => ({ nodes: listNodes(options) }),
    updateNode: (request) => updateNode(options, request),
    removeNode: async ({ node, force }) => ({ nodeId: await removeNode(options, node, force) }),
    createService: (request, { caller }) => createService(withTurns, request, authorOf(caller)),
    updateService: (request, { caller }) => updateService(withTurns, request, authorOf(caller)),
    removeService: async ({ service }) => ({ serviceId: await removeService(store, service) }),
    getService: ({ service }) => getService(store.view, service),
    getServiceHistory: ({ service }) => serviceHistory(store.view, service),
    listServices: () => listServices(store.view),
    createNetwork: ({ spec }, { signal }) => createNetwork(withTurns, spec, signal),
    updateNetwork: (request) => updateNetwork(withTurns, request),
    removeNetwork: async ({ network }) => ({ networkId: await removeNetwork(withTurns, network) }),
    getNetwork: (request) => getNetwork(store.view, request),
    listNetworks: () => listNetworks(store.view),
    createSecret: async (request) => ({ secret: await createPayload(withTurns, 'secret', request) }),
    updateSecret: async (request) => ({ secret: await updatePayload(withTurns, 'secret', request) }),
    removeSecret: async ({ source }) => ({ id: await removePayload(withTurns, 'secret', source) }),
    getSecret: ({ source }) => getSecret(store.view, source),
    listSecrets: () => ({ secrets: [...store.view.secret.values()] }),
    createConfig: async (request) => ({ config: await createPayload(withTurns, 'config', request) }),
    updateConfig: async (request) => ({ config: await updatePayload(withTurns, 'config', request) }),
    removeConfig: async ({ source }) => ({ id: await removePayload(withTurns, 'config', source) }),
    getConfig: ({ source }) => getConfig(store.view, source),
    listConfigs: () => ({ configs: [...store.view.config.values()] }),
    async *listTasks(request, { signal }) {
      for (const page of listTasks(store.view, request)) {
        yield page;
        // A million tasks are many pages: what else is to do goes in between.
        await sleep(clock, 0, signal);
      }
    },
    watchService: ({ serviceId }, { signal }) => watchService(store, serviceId, signal),
    watchEvents: (request, { signal }) => watchEvents(options, request, signal),
    reach: (inputs, context) => reach(options, inputs, context),
    serviceLogs: (request, { signal }) => serviceLogs(store, logBroker, request, signal),
    async *backup() {
      for await (const data of backup()) yield { data };
    },
    traceNetwork: (request) => traceNetwork({ view: store.view, questions: options.questions }, request),
    auditNetworks: (request) => auditNetworks({ view: store.view, questions: options.questions }, request),
    getCapacity: async (_, { signal }) => {
      const nodes: NodeSpare[] = [];
      for await (const node of spareOf({ view: store.view, clock }, signal)) nodes.push(node);
      return { nodes };
    },
    planService: (request) => planServiceRequest(store.view, request, clock.nowMs()),
    explain: ({ target, kind = '' }) => explain(store.view, { target, kind }, clock.nowMs()),
  };
}
