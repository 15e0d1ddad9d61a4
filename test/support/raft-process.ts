// One manager's log as a process of its own: the real host, disk and peers over mutual TLS, with registers instead of the
// store. Told what to do over the IPC channel of `RaftProcess` (raft-cluster.ts), which also knows its messages.

import { randomBytes } from 'node:crypto';
import { parseHostPort } from '../../core/addresses.ts';
import { defined } from '../../core/assert.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { GrpcPeers, PEER_CHANNEL_OPTIONS } from '../../manager/raft-host/grpc-peers.ts';
import { RaftHost } from '../../manager/raft-host/raft-host.ts';
import { RealDisk } from '../../manager/raft-host/real-disk.ts';
import type { ApplyResult, Leadership, StateMachine } from '../../manager/store/replicated-log.ts';
import { Store } from '../../manager/store/store.ts';
import { systemClock } from '../../node/system-clock.ts';
import type { Member } from '../../proto/generated/raft.ts';
import { PeerService } from '../../proto/generated/raft.ts';
import { openTlsChannel } from '../../rpc/client.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { RpcServer } from '../../rpc/server.ts';
import { clientCredentials, type TlsIdentity } from '../../rpc/tls.ts';
import { type SchedulingLoad, scheduleTasks } from './demanding-services.ts';
import { createTasks } from './many-tasks.ts';

export interface RaftProcessConfig {
  readonly self: Member;
  readonly founders?: readonly Member[];
  readonly directory: string;
  readonly forceNewCluster?: boolean;
  readonly snapshotInterval: number;
  readonly clusterId: string;
  readonly identity: TlsIdentity;
  readonly lowWatermarkBytes?: number;
  /** Bytes that each register has in a snapshot besides its value: a large state without the memory for it. */
  readonly snapshotPadding?: number;
  /** The store instead of registers. */
  readonly hasStore?: boolean;
  readonly logLevel: 'silent' | 'debug' | 'info' | 'warn';
}

export type RaftRequest =
  | { readonly op: 'write'; readonly register: number; readonly value: number; readonly padding?: number }
  | { readonly op: 'read'; readonly register: number }
  | { readonly op: 'status' | 'snapshot' }
  /** To managers with the store: makes so many tasks, tells how many there are. */
  | { readonly op: 'create-tasks' | 'count-tasks'; readonly count?: number }
  | { readonly op: 'schedule'; readonly load: SchedulingLoad }
  | { readonly op: 'transfer'; readonly to?: number }
  | { readonly op: 'add'; readonly kind: 'add-voter' | 'add-learner'; readonly member: Member }
  | { readonly op: 'remove' | 'move'; readonly member: Member }
  | { readonly op: 'load'; readonly inFlight: number; readonly bytes: number; readonly seconds: number };

/** Registers, by number; an entry is `register, value` and padding. */
class Registers implements StateMachine {
  readonly values = new Map<number, number>();
  readonly #snapshotPadding: number;

  constructor(snapshotPadding = 0) {
    this.#snapshotPadding = snapshotPadding;
  }

  apply(index: number, payload: Uint8Array): ApplyResult {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    this.values.set(view.getUint32(0), view.getUint32(4));
    return { applied: true, index };
  }

  snapshot(): Iterable<Uint8Array> {
    return paddedEntries([...this.values], this.#snapshotPadding);
  }

  async restore(_index: number, records: AsyncIterable<readonly Uint8Array[]>): Promise<void> {
    const values = new Registers();
    for await (const chunk of records) for (const record of chunk) values.apply(0, record);
    this.values.clear();
    for (const [register, value] of values.values) this.values.set(register, value);
  }
}

function* paddedEntries(
  values: readonly (readonly [number, number])[],
  padding: number,
): Iterable<Uint8Array> {
  for (const [register, value] of values) yield entryOf(register, value, padding);
}

function entryOf(register: number, value: number, padding: number): Uint8Array {
  const entry = Buffer.alloc(8 + padding, 120);
  entry.writeUInt32BE(register, 0);
  entry.writeUInt32BE(value, 4);
  return entry;
}

async function main(config: RaftProcessConfig): Promise<void> {
  setLogLevel(config.logLevel);
  const registers = new Registers(config.snapshotPadding);
  const { clusterId, identity } = config;
  const server = new RpcServer();
  let isServing = false;
  const host = new RaftHost({
    log: {
      disk: await RealDisk.open(config.directory),
      randomBytes,
      ...(config.lowWatermarkBytes === undefined
        ? undefined
        : { lowWatermarkBytes: config.lowWatermarkBytes }),
      onFatal: (error) => {
        process.stderr.write(`fatal: ${messageOf(error)}\n`);
        process.exit(3);
      },
    },
    clusterId,
    self: config.self,
    ...(config.founders === undefined ? undefined : { founders: config.founders }),
    forceNewCluster: config.forceNewCluster ?? false,
    openNetwork: (self, events) => {
      const peers = new GrpcPeers(
        {
          clusterId,
          clock: systemClock,
          connect: (member) =>
            openTlsChannel(
              member.address,
              clientCredentials(identity, { clusterId, nodeId: member.nodeId }),
              PEER_CHANNEL_OPTIONS,
            ),
          authorize: ({ caller: { nodeId } }, from, members) => {
            const member = members.find(({ id }) => id === from);
            // A member that is not known yet adds itself by the log of the leader; TLS has checked the authority.
            if (member !== undefined && member.nodeId !== nodeId)
              throw new SwarmError('permission-denied', `node ${nodeId} may not speak as member ${from}`);
          },
        },
        self,
        events,
      );
      server.add(PeerService, peers.handlers);
      isServing = true;
      return peers;
    },
    clock: systemClock,
    random: Math.random,
    defer: setImmediate,
    snapshotInterval: () => config.snapshotInterval,
  });
  const store = config.hasStore === true ? new Store(host, systemClock) : undefined;
  await (store === undefined ? host.open(registers) : store.open());
  if (isServing)
    await server.listenTls(parseHostPort(config.self.address, 'address'), { identity, clusterId });
  const tell = ({ isLeader, term }: Leadership) => process.send?.({ event: 'leadership', isLeader, term });
  host.onLeadership(tell);
  // Who is alone leads already.
  tell(host.leadership);
  process.on('message', ({ id, request }: { id: number; request: RaftRequest }) => {
    answer({ host, registers, store }, request).then(
      (value) => process.send?.({ id, value }),
      (error) => process.send?.({ id, error: messageOf(error), name: (error as Error).constructor.name }),
    );
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.({ event: 'ready' });
}

interface Parts {
  readonly host: RaftHost;
  readonly registers: Registers;
  readonly store: Store | undefined;
}

async function answer({ host, registers, store }: Parts, request: RaftRequest): Promise<unknown> {
  switch (request.op) {
    case 'write':
      return (await host.propose(entryOf(request.register, request.value, request.padding ?? 0))).index;
    case 'read':
      await host.readBarrier();
      return { value: registers.values.get(request.register) ?? 0, index: host.appliedIndex };
    case 'status':
      return { ...host.status, registers: [...registers.values] };
    case 'snapshot':
      return host.takeSnapshot();
    case 'create-tasks':
      return createTasks(defined(store, 'the process has no store'), request.count ?? 0);
    case 'schedule':
      return scheduleTasks(defined(store, 'the process has no store'), request.load);
    case 'count-tasks':
      return store?.view.task.size ?? 0;
    case 'transfer':
      return host.transferLeadership(request.to);
    case 'add':
      return host.changeMembers({ steps: [{ kind: request.kind, member: request.member }] });
    case 'remove':
    case 'move':
      return host.changeMembers({ steps: [{ kind: request.op, member: request.member }] });
    case 'load':
      return load(host, request);
  }
}

/** Writes as fast as it gets answers, with so many in flight. */
async function load(
  host: RaftHost,
  { inFlight, bytes, seconds }: { inFlight: number; bytes: number; seconds: number },
): Promise<{ count: number; seconds: number; latenciesMs: number[] }> {
  const payload = entryOf(1, 1, bytes - 8);
  const latenciesMs: number[] = [];
  const startedMs = performance.now();
  const endMs = startedMs + seconds * 1000;
  let count = 0;
  const writer = async () => {
    for (let nowMs = performance.now(); nowMs < endMs; ) {
      await host.propose(payload);
      const doneMs = performance.now();
      latenciesMs.push(doneMs - nowMs);
      nowMs = doneMs;
      count++;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, writer));
  return { count, seconds: (performance.now() - startedMs) / 1000, latenciesMs };
}

process.once('message', (config: RaftProcessConfig) => {
  main(config).catch((error) => {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  });
});
