// What the rest of the manager asks of the consensus group. Without one (the state lies in etcd) every manager may come and
// go, and all that is known of the others is who leads.

import type { Node } from '../core/generated/objects.ts';
import type { ConfigurationChange, Member } from '../proto/generated/raft.ts';
import type { RoleMember } from './ca/plan-roles.ts';
import type { RaftStatus } from './raft-host/host-options.ts';

export interface Consensus {
  readonly status: RaftStatus;
  changeMembers(change: ConfigurationChange): Promise<void>;
  transferLeadership(to?: number): Promise<void>;
}

/** A manager as the leader sees it. */
export interface ManagerView {
  readonly nodeId: string;
  readonly member: Member;
  readonly isVoter: boolean;
  readonly isReachable: boolean;
}

/** Everybody in the group, this manager too. */
export function managersOf({ configuration, self, peers }: RaftStatus): ManagerView[] {
  const { voters, members } = configuration;
  return members.map((member) => ({
    nodeId: member.nodeId,
    member,
    isVoter: voters.includes(member.id),
    isReachable:
      member.id === self.id || peers.some((peer) => peer.member.id === member.id && peer.isConnected),
  }));
}

/** The group as the planner of roles wants it. `unreachableSinceMs` tells since when a member is out of reach. */
export function roleMembers(
  status: RaftStatus,
  unreachableSinceMs: (nodeId: string) => number = () => 0,
): RoleMember[] {
  return managersOf(status).map(({ nodeId, isVoter, isReachable }) => ({
    nodeId,
    isVoter,
    ...(!isReachable && { unreachableSinceMs: unreachableSinceMs(nodeId) }),
  }));
}

/** The node as operators see it: with what is known of it as a manager at this moment. */
export function withManagerStatus(node: Node, status: RaftStatus | undefined, leaderAddress?: string): Node {
  if (node.managerStatus === undefined) return node;
  const { address } = node.managerStatus;
  if (status === undefined) {
    const leader = address === leaderAddress;
    const reachable = leader || node.status.state === 'ready';
    return { ...node, managerStatus: { address, leader, reachable, voter: true } };
  }
  const manager = managersOf(status).find(({ nodeId }) => nodeId === node.id);
  const leader = manager !== undefined && manager.member.id === status.leaderId;
  return {
    ...node,
    managerStatus: {
      address: manager?.member.address ?? address,
      leader,
      reachable: leader || manager?.isReachable === true,
      voter: manager?.isVoter === true,
    },
  };
}
