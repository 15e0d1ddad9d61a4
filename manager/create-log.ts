// The replicated log of one manager: in etcd, or Raft on this manager's disk with the other managers as peers.

import { randomBytes } from 'node:crypto';
import path from 'node:path';
import type { Clock, Random } from '../core/clock.ts';
import { hasCode, SwarmError } from '../core/errors.ts';
import type { Member } from '../proto/generated/raft.ts';
import type { Channel } from '../rpc/client.ts';
import type { CallContext } from '../rpc/server.ts';
import type { EtcdSettings } from './etcd-log/settings.ts';
import type { Disk } from './raft-host/disk.ts';
import { GrpcPeers } from './raft-host/grpc-peers.ts';
import { loadKeyFile } from './raft-host/key-file.ts';
import { newMemberId } from './raft-host/member-id.ts';
import { RaftHost } from './raft-host/raft-host.ts';
import { RealDisk } from './raft-host/real-disk.ts';
import type { ReplicatedLog } from './store/replicated-log.ts';

export interface LogCreation {
  /** Holds the log. */
  readonly stateDirectory: string;
  readonly nodeId: string;
  readonly clusterId: string;
  /** host:port for peers. */
  readonly advertiseAddress: string;
  /** Where the state lies when it does not lie on this manager's disk. */
  readonly etcd?: EtcdSettings;
  /** This manager begins the cluster; else the leader of the cluster adds it. */
  readonly isFounder: boolean;
  readonly forceNewCluster?: boolean;
  /** What the log's keys may be wrapped with, the likeliest first. */
  readonly unlockKeys: readonly string[];
  /** Entries between two snapshots, as the cluster has it by now. */
  readonly snapshotInterval: () => number;
  readonly clock: Clock;
  readonly random: Random;
  /** A connection to the peer and to nobody else. */
  readonly connect: (member: Member) => Channel;
  /** Takes what peers call. */
  readonly onPeers: (peers: GrpcPeers) => void;
  readonly observe: (name: string, durationMs: number) => void;
  /** Told when the log has failed. */
  readonly onFatal: (error: unknown) => void;
  readonly signal: AbortSignal;
}

/** Of a manager that keeps its state on its disk. */
export function logDirectory(stateDirectory: string): string {
  return path.join(stateDirectory, 'log');
}

export async function createLog(options: LogCreation): Promise<ReplicatedLog> {
  const { etcd, clusterId, nodeId, advertiseAddress, clock, observe, onFatal, signal } = options;
  if (etcd === undefined) return createRaftLog(options);
  // Who keeps the state on the disk need not load a client of etcd.
  const { EtcdLog } = await import('./etcd-log/etcd-log.ts');
  return new EtcdLog({
    settings: etcd,
    clusterId,
    self: { nodeId, address: advertiseAddress },
    clock,
    defer: setImmediate,
    onFatal,
    observe: (operation, durationMs) => observe(`swarm_raft_${operation}_latency_seconds`, durationMs),
    signal,
  });
}

async function createRaftLog(options: LogCreation): Promise<RaftHost> {
  const { clock, random, nodeId, clusterId, advertiseAddress, unlockKeys, observe, onFatal } = options;
  const self = { id: newMemberId(randomBytes), nodeId, address: advertiseAddress };
  const disk = await RealDisk.open(logDirectory(options.stateDirectory));
  const unlockKey = await fittingKey(disk, unlockKeys);
  return new RaftHost({
    log: { disk, randomBytes, onFatal, ...(unlockKey !== undefined && { unlockKey }) },
    clusterId,
    self,
    ...(options.isFounder && { founders: [self] }),
    forceNewCluster: options.forceNewCluster ?? false,
    openNetwork: (member, events) => {
      const { connect } = options;
      const peers = new GrpcPeers({ clusterId, clock, connect, authorize }, member, events);
      options.onPeers(peers);
      return peers;
    },
    clock,
    random,
    defer: setImmediate,
    snapshotInterval: options.snapshotInterval,
    observe: (operation, durationMs) =>
      observe(
        operation === 'fsync'
          ? 'tsswarm_log_fsync_latency_seconds'
          : `swarm_raft_${operation}_latency_seconds`,
        durationMs,
      ),
  });
}

/**
 * A known member speaks only from its own node. One that is not known yet to a manager that is new itself has the role of a
 * manager in its certificate, or it would not get here.
 */
function authorize({ caller: { nodeId } }: CallContext, from: number, members: readonly Member[]): void {
  const member = members.find(({ id }) => id === from);
  if (member !== undefined && member.nodeId !== nodeId)
    throw new SwarmError('permission-denied', `node ${nodeId} may not speak as member ${from}`);
}

/** Of several keys the one that opens this log: a manager that was down while the key changed has the one before. */
async function fittingKey(disk: Disk, unlockKeys: readonly string[]): Promise<string | undefined> {
  for (const [position, unlockKey] of unlockKeys.entries()) {
    try {
      await loadKeyFile(disk, unlockKey);
      return unlockKey;
    } catch (error) {
      if (!hasCode(error, 'permission-denied') || position === unlockKeys.length - 1) throw error;
    }
  }
  return undefined;
}
