// What the first leader of a cluster writes before anything else: the cluster itself and its own node. After a restore or a
// forced new cluster the cluster is there, and only its managers are other ones.

import type { Clock } from '../core/clock.ts';
import { defaultClusterNetwork, defaultClusterSpec } from '../core/defaults.ts';
import {
  type ClusterNetwork,
  type ClusterSpec,
  emptyMeta,
  emptyNetwork,
  emptyNetworkSpec,
  emptyNodeDescription,
  type NetworkSpec,
  type NodeAvailability,
} from '../core/generated/objects.ts';
import { newId, type RandomBytes } from '../core/ids.ts';
import { newSecrets } from './ca/authority.ts';
import type { CertificateTool } from './ca/certificate-tool.ts';
import { withoutManagement } from './ca/role-loop.ts';
import type { Store } from './store/store.ts';
import type { Transaction } from './store/transaction.ts';

/** What an operator asked for when the cluster began. */
export interface Bootstrap {
  readonly spec: Partial<ClusterSpec>;
  readonly network: Partial<ClusterNetwork>;
  readonly availability: NodeAvailability;
  readonly dataPathAddress: string;
}

export interface BootstrapOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly tool: CertificateTool;
  readonly nodeId: string;
  readonly clusterId: string;
  /** host:port. */
  readonly advertiseAddress: string;
}

/** Only before other managers have joined: it takes them for gone. */
export async function bootstrap(options: BootstrapOptions, founding: Bootstrap): Promise<void> {
  const { store, clusterId, tool, clock, randomBytes } = options;
  const spec = { ...defaultClusterSpec, ...founding.spec };
  const isNew = store.view.cluster.get(clusterId) === undefined;
  const secrets = isNew
    ? await newSecrets(tool, { clusterId, autolock: spec.autolock, nowMs: clock.nowMs(), randomBytes })
    : undefined;
  await store.update((tx) => {
    if (secrets !== undefined && tx.view.cluster.get(clusterId) === undefined) {
      const network = { ...defaultClusterNetwork, ...founding.network };
      tx.create('cluster', { id: clusterId, meta: emptyMeta, spec, secrets, network });
      tx.create('network', { ...emptyNetwork, id: newId(randomBytes), spec: ingressNetwork });
    }
    putFirstManager(tx, options, founding);
    // Whoever managed before is gone; if it comes back, it has to be promoted again.
    for (const node of tx.view.node.values())
      if (node.id !== options.nodeId && node.role === 'manager') tx.update('node', withoutManagement(node));
  });
}

/** The network of the routing mesh, as Swarm makes it. An operator may replace it. */
const ingressNetwork: NetworkSpec = { ...emptyNetworkSpec, name: 'ingress', ingress: true };

function putFirstManager(
  tx: Transaction,
  { nodeId, advertiseAddress }: BootstrapOptions,
  { availability, dataPathAddress }: Bootstrap,
): void {
  const managerStatus = { leader: false, reachable: false, voter: false, address: advertiseAddress };
  const known = tx.view.node.get(nodeId);
  if (known !== undefined) {
    const spec = { ...known.spec, desiredRole: 'manager' as const };
    tx.update('node', { ...known, spec, role: 'manager', roleMessage: '', managerStatus });
    return;
  }
  tx.create('node', {
    id: nodeId,
    meta: emptyMeta,
    spec: { name: '', labels: {}, availability, desiredRole: 'manager' },
    description: emptyNodeDescription,
    status: { state: 'unknown', message: 'waiting for its agent', address: '', sinceMs: 0 },
    managerStatus,
    role: 'manager',
    roleMessage: '',
    renewalAskedAtMs: 0,
    dataPathAddress,
    tunnelAddress: '',
  });
}
