// The doors of a manager: one socket for operators, one for its own node, and the port for all other nodes. The same
// handlers stand behind all of them, and pass on to the leader what only it can do.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { HostPort } from '../core/addresses.ts';
import { SwarmError, toSwarmError } from '../core/errors.ts';
import { ControlService, ManagerHealthService } from '../proto/generated/control.ts';
import { DispatcherService } from '../proto/generated/dispatcher.ts';
import { MembershipService, NodeCaService } from '../proto/generated/membership.ts';
import { PeerService } from '../proto/generated/raft.ts';
import type { Caller } from '../rpc/caller.ts';
import { BACKDATED_MS, describeCertificate, issuerDigest } from '../rpc/certificates.ts';
import { type LeaderLink, onLeader } from '../rpc/forward.ts';
import { type Handlers, RpcServer } from '../rpc/server.ts';
import { theCluster, trustedRoots } from './ca/authority.ts';
import type { IdentityHolder } from './identity-holder.ts';
import type { VouchedManagers } from './join-managers.ts';
import { managerLog } from './log.ts';
import type { ManagerMetrics } from './metrics.ts';
import type { GrpcPeers } from './raft-host/grpc-peers.ts';
import type { Store } from './store/store.ts';
import type { TablesView } from './store/tables.ts';

export interface ServersOptions {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly store: Store;
  readonly metrics: ManagerMetrics;
  readonly leader: LeaderLink;
  readonly identity: IdentityHolder;
  readonly peers: GrpcPeers | undefined;
  readonly control: Handlers<typeof ControlService>;
  readonly dispatcher: Handlers<typeof DispatcherService>;
  readonly nodeCa: Handlers<typeof NodeCaService>;
  readonly membership: Handlers<typeof MembershipService>;
  readonly health: Handlers<typeof ManagerHealthService>;
  readonly vouched: () => VouchedManagers | undefined;
}

export interface Addresses {
  /** For operators: mode 0660. */
  readonly controlSocket: string;
  /** For the node and its agent: mode 0600. */
  readonly managerSocket: string;
  /** For other nodes. */
  readonly listen: HostPort;
}

export class Servers {
  readonly #options: ServersOptions;
  readonly #control: RpcServer;
  readonly #internal: RpcServer;
  readonly #nodes: RpcServer;
  #isListening = false;

  constructor(options: ServersOptions) {
    const { nodeId, store, metrics, leader } = options;
    this.#options = options;
    const observe = (method: string, durationMs: number, error: unknown) =>
      metrics.observeCall(method, durationMs, error === undefined ? 'ok' : toSwarmError(error).code);
    this.#control = new RpcServer({ observe, nodeId });
    this.#internal = new RpcServer({ observe, nodeId });
    this.#nodes = new RpcServer({
      observe,
      identify: (caller) => identify(store, caller, options.vouched()),
      onRefused: (method, { role, nodeId: from }, error) =>
        managerLog.warn({ method, role, 'node.id': from, error: error.message }, 'call refused'),
    });
    const control = onLeader(ControlService, options.control, leader);
    const dispatcher = onLeader(DispatcherService, options.dispatcher, leader);
    const membership = onLeader(MembershipService, options.membership, leader);
    const nodeCa = nodeCaOf(options);
    this.#control.add(ControlService, control);
    for (const server of [this.#internal, this.#nodes]) {
      server.add(DispatcherService, dispatcher);
      server.add(MembershipService, membership);
      server.add(NodeCaService, nodeCa);
    }
    this.#internal.add(ManagerHealthService, options.health);
    this.#nodes.add(ControlService, control);
    this.#nodes.addTrunk(leader.clock);
    if (options.peers !== undefined) this.#nodes.add(PeerService, options.peers.handlers);
    store.subscribe(({ decisive }) => {
      for (const event of decisive)
        if (event.kind === 'node' && event.action === 'removed') this.#nodes.disconnect(event.object.id);
    });
  }

  /** The port for nodes is opened as soon as there is a certificate. Throws when an address cannot be had. */
  async listen({ controlSocket, managerSocket, listen }: Addresses): Promise<void> {
    await mkdir(path.dirname(controlSocket), { recursive: true });
    await this.#internal.listen(managerSocket, 0o600);
    await this.#control.listen(controlSocket, 0o660);
    const { clusterId, identity } = this.#options;
    const first = Promise.withResolvers<void>();
    identity.follow((current) => {
      if (this.#isListening) return this.#nodes.setIdentity(current);
      this.#isListening = true;
      this.#nodes
        .listenTls(listen, { identity: current, clusterId })
        .then(() => first.resolve(), first.reject);
    });
    return first.promise;
  }

  stop(): void {
    for (const server of [this.#control, this.#internal, this.#nodes]) server.stop();
  }
}

/**
 * Roots are no secret and the same everywhere. For its own node a manager signs by itself while it cannot ask the leader: before
 * its first certificate, and once that has expired. Otherwise the leader signs: what this manager knows of the roots may be old,
 * and a certificate of a root that is gone would take the place of a good one. It is old when it does not know who has signed the
 * one that has expired.
 */
export function nodeCaOf({
  nodeCa,
  leader,
  identity,
  store,
}: Pick<ServersOptions, 'nodeCa' | 'leader' | 'identity' | 'store'>): Handlers<typeof NodeCaService> {
  const byLeader = onLeader(NodeCaService, nodeCa, leader);
  const maySign = () => {
    if (identity.isEmpty) return true;
    const { certificate } = identity.current;
    const isExpired = describeCertificate(certificate).notAfterMs <= leader.clock.nowMs();
    return isExpired && issuerDigest(certificate, trustedRoots(theCluster(store.view).secrets)) !== undefined;
  };
  return {
    getRoots: nodeCa.getRoots,
    issueCertificate: (request, context) =>
      (context.caller.role === 'local' && maySign() ? nodeCa : byLeader).issueCertificate(request, context),
  };
}

/**
 * What a certificate says is what its owner was when it was issued. Who was removed is nobody, and who was demoted a
 * worker. A manager that is new knows no node yet, and has to believe who brings it the log. One that was away believes those
 * whom other managers have named, until it has the log itself, and a certificate that was issued after all that it knows: whom it
 * knew as managers may all be workers by now, and only managers of whom it has not heard have the log. Where the clocks of two
 * leaders disagree, who was demoted under the second stays a manager for as long.
 */
export function identify(store: Store, caller: Caller, vouched?: VouchedManagers): Caller {
  if (caller.role !== 'worker' && caller.role !== 'manager') return caller;
  if (vouched !== undefined && store.index < vouched.index && vouched.nodeIds.has(caller.nodeId))
    return caller;
  if (caller.role === 'manager' && issuedMs(store.view, caller) > store.newestMs) return caller;
  const node = store.view.node.get(caller.nodeId);
  if (node === undefined && store.view.cluster.size === 0) return caller;
  if (node === undefined)
    throw new SwarmError('permission-denied', `node ${caller.nodeId} is not part of this cluster`, {
      hint: 'It was removed: run "tsswarm leave --force" on it, and join it again with a token.',
    });
  return caller.role === 'manager' && node.role === 'worker' ? { ...caller, role: 'worker' } : caller;
}

/** When the caller's certificate was issued, or earlier: other authorities date theirs back by less, if at all. */
function issuedMs({ cluster }: TablesView, { validFromMs = 0 }: Caller): number {
  const hasOthers = [...cluster.values()].some(({ spec }) => spec.externalCas.length > 0);
  return validFromMs + (hasOthers ? 0 : BACKDATED_MS);
}
