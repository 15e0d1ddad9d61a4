// What a node has to know of its cluster, pure.

import type { Node } from '../../core/generated/objects.ts';
import type { ClusterNews, ManagerAddress } from '../../proto/generated/dispatcher.ts';
import { rootDigest } from '../../rpc/certificates.ts';
import type { TablesView } from '../store/tables.ts';

/** The same for all nodes of a role. */
export interface SharedNews {
  readonly managers: readonly ManagerAddress[];
  readonly roots: string;
  readonly unlockKey: string;
  /** Of the root that is on its way in, in hexadecimal. */
  readonly nextRoot: string | undefined;
}

export function sharedNews(view: TablesView): SharedNews {
  const [cluster] = view.cluster.values();
  const { root, rotation, unlockKey } = cluster?.secrets ?? { unlockKey: '' };
  return {
    managers: [...view.node.values()]
      .filter(({ role, managerStatus }) => role === 'manager' && managerStatus !== undefined)
      .map(({ id, managerStatus }) => ({ nodeId: id, address: managerStatus?.address ?? '' })),
    roots: [root?.certificate ?? '', rotation?.next.certificate ?? ''].join(''),
    unlockKey,
    nextRoot: rotation && Buffer.from(rootDigest(rotation.next.certificate)).toString('hex'),
  };
}

/** What concerns only managers goes only to them. */
export function newsFor({ managers, roots, unlockKey, nextRoot }: SharedNews, node: Node): ClusterNews {
  return {
    managers,
    roots,
    role: node.role,
    renewCertificate:
      nextRoot !== undefined && node.renewalAskedAtMs > 0 && node.description.trust.issuer !== nextRoot,
    unlockKey: node.role === 'manager' ? unlockKey : '',
    address: node.managerStatus?.address ?? '',
  };
}
