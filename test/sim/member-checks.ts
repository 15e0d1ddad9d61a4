// What must hold in every moment of a simulated cluster whose members come, go, change roles and certificates.

import { SwarmError } from '../../core/errors.ts';
import type { Cluster, Node } from '../../core/generated/objects.ts';
import { digestOf } from '../../manager/ca/authority.ts';
import type { nodeCaHandlers } from '../../manager/ca/node-ca.ts';
import { type Consensus, managersOf } from '../../manager/consensus.ts';
import type { RaftHost } from '../../manager/raft-host/raft-host.ts';
import type { Commit, Store } from '../../manager/store/store.ts';
import type { TablesView } from '../../manager/store/tables.ts';
import { trustOf } from '../../node/certificate-files.ts';
import type { Caller } from '../../rpc/caller.ts';
import { describeCertificate } from '../../rpc/certificates.ts';
import type { TlsIdentity } from '../../rpc/tls.ts';
import { Violation } from './core-checks.ts';
import type { SimManager } from './member-manager.ts';

type NodeCa = ReturnType<typeof nodeCaHandlers>;

export class MemberChecks {
  /** How often something was checked, by rule. */
  readonly counts = new Map<string, number>();
  failure: Violation | undefined;
  readonly #leaders = new Map<number, number>();
  /** The log index at which a node became a manager, the last time. */
  readonly #promotedAt = new Map<string, number>();
  readonly #identityOf: (nodeId: string) => TlsIdentity | undefined;

  /** `identityOf` tells what a node shows and believes in truth. */
  constructor(identityOf: (nodeId: string) => TlsIdentity | undefined) {
    this.#identityOf = identityOf;
  }

  check(condition: boolean, rule: string, message: () => string): void {
    this.counts.set(rule, (this.counts.get(rule) ?? 0) + 1);
    if (!condition) this.failure ??= new Violation(rule, message());
  }

  /** A manager ends by itself for reasons that people are told. */
  ended(error: unknown): void {
    this.check(error instanceof SwarmError, 'end', () =>
      error instanceof Error ? `${error.stack}` : `${error}`,
    );
  }

  led(term: number, member: number): void {
    const leader = this.#leaders.get(term) ?? member;
    this.#leaders.set(term, leader);
    this.check(leader === member, 'one leader', () => `${leader} and ${member} lead term ${term}`);
  }

  /**
   * Who is let in is a node of the cluster as this manager has it, and no more than that; or one that has become a manager by
   * entries that this manager lacks.
   */
  admitted({ view, index }: Store, { role, nodeId }: Caller): void {
    if (view.cluster.size === 0 || role === 'anyone' || role === 'local') return;
    if (role === 'manager' && (this.#promotedAt.get(nodeId) ?? 0) > index) return;
    const node = view.node.get(nodeId);
    this.check(node !== undefined, 'admission', () => `node ${nodeId} is let in after its removal`);
    this.check(
      node === undefined || role !== 'manager' || node.role === 'manager',
      'admission',
      () => `the worker ${nodeId} is let in as a manager`,
    );
  }

  /** Certificates say what the store of the signer had the node for. */
  watchIssuing(handlers: NodeCa, store: Store): NodeCa {
    return {
      ...handlers,
      issueCertificate: async (request, context) => {
        const roles = new Map([...store.view.node.values()].map(({ id, role }) => [id, role]));
        const answer = await handlers.issueCertificate(request, context);
        const { role, nodeId } = describeCertificate(answer.certificate);
        const is = store.view.node.get(nodeId)?.role;
        this.check(
          role === roles.get(nodeId) || role === is,
          'certificate',
          () => `node ${nodeId}, a ${is}, is certified as ${role}`,
        );
        return answer;
      },
    };
  }

  /** Nobody is given the certificate of another node. */
  owns(nodeId: string, { certificate }: TlsIdentity): void {
    const { nodeId: named } = describeCertificate(certificate);
    this.check(named === nodeId, 'own certificate', () => `node ${nodeId} has the certificate of ${named}`);
  }

  /** No change of members by ourselves costs the majority that there was. */
  watchConsensus(host: RaftHost): Consensus {
    const checks = this;
    return {
      get status() {
        return host.status;
      },
      transferLeadership: (to) => host.transferLeadership(to),
      async changeMembers(change) {
        const removed = change.steps.filter(({ kind }) => kind === 'remove').map(({ member }) => member?.id);
        const replaces = change.steps.length > removed.length;
        const voters = managersOf(host.status).filter(({ isVoter }) => isVoter);
        const isMajority = (some: typeof voters) =>
          some.filter(({ isReachable }) => isReachable).length > some.length / 2;
        const left = voters.filter(({ member }) => !removed.includes(member.id));
        if (removed.length > 0 && !replaces)
          checks.check(
            !isMajority(voters) || isMajority(left),
            'majority',
            () => `removing ${removed.join()} leaves ${JSON.stringify(left)}`,
          );
        return host.changeMembers(change);
      },
    };
  }

  /** A manager has applied an entry. */
  committed({ host, store }: SimManager, { index, events }: Commit): void {
    for (const { kind, object, previous } of events)
      if (
        kind === 'node' &&
        (object as Node).role === 'manager' &&
        (previous as Node | undefined)?.role !== 'manager'
      ) {
        const { id } = object;
        this.#promotedAt.set(id, Math.max(this.#promotedAt.get(id) ?? 0, index));
      }
    if (!host.leadership.isLeader) return;
    for (const { kind, object, previous } of events) {
      if (previous === undefined || object === previous) continue;
      if (kind === 'node') this.#checkDemotion(host, object as Node, previous as Node);
      if (kind === 'cluster') this.#checkRotation(object as Cluster, previous as Cluster, store.view);
    }
  }

  /** Who becomes a worker throws its log away: it may not count any more. */
  #checkDemotion(host: RaftHost, { id, role }: Node, previous: Node): void {
    if (role === 'manager' || previous.role === 'worker') return;
    const voter = managersOf(host.status).find(({ nodeId, isVoter }) => nodeId === id && isVoter);
    this.check(voter === undefined, 'demotion', () => `node ${id} becomes a worker while its vote counts`);
  }

  /** A root goes when nobody needs it any more. */
  #checkRotation({ secrets }: Cluster, previous: Cluster, view: TablesView): void {
    if (secrets.root.certificate === previous.secrets.root.certificate) return;
    const root = digestOf(secrets.root.certificate);
    for (const { id: nodeId } of view.node.values()) {
      const identity = this.#identityOf(nodeId);
      if (identity === undefined) continue;
      const { issuer, roots } = trustOf(identity);
      this.check(
        roots.includes(root),
        'rotation',
        () => `it ends, and node ${nodeId} does not believe the root`,
      );
      this.check(
        issuer === root,
        'rotation',
        () => `it ends, and node ${nodeId} shows another root's certificate`,
      );
    }
  }
}
