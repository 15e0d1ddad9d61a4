// What three managers commit, next to three etcd on the same disk, alternating in one run: durable writes of 500 bytes,
// one at a time and many in flight. Ours: real processes, mutual TLS, encryption at rest. etcd: plain connections, its
// members' log in the clear, and operations by the hundred in a transaction where many are in flight.

import { RaftCluster } from '../test/support/raft-cluster.ts';
import { RealEtcd } from '../test/support/real-etcd.ts';
import { freePort } from '../test/support/real-registry.ts';
import type { BenchOptions } from './main.ts';
import { againstFloor, againstLimit, median, percentile, type Row } from './report.ts';

const MEMBERS = 3;
const WRITE_BYTES = 500;
const IN_FLIGHT = 256;
const WRITES_TARGET = 50_000;
const ALONE_MS_MAX = 1;
/** Of the peer: operations in one transaction (it takes 128), and transactions in flight. */
const PEER_OPERATIONS = 100;
const PEER_TRANSACTIONS = 8;
const ROUNDS = 5;
const ROUNDS_QUICK = 2;
const ROUND_S = 3;
const ROUND_QUICK_S = 2;

interface Figures {
  readonly p50Ms: number[];
  readonly p99Ms: number[];
  readonly perSecond: number[];
}

/** Bars: one write at a time p50 <= 1 ms; 256 in flight >= 50,000/s, and more than etcd in transactions of 100. */
export async function storeBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const ours: Figures = { p50Ms: [], p99Ms: [], perSecond: [] };
  const etcd: Figures = { p50Ms: [], p99Ms: [], perSecond: [] };
  for (let round = 0; round < (isQuick ? ROUNDS_QUICK : ROUNDS); round++) {
    const seconds = isQuick ? ROUND_QUICK_S : ROUND_S;
    await measureOurs(ours, seconds);
    await measureEtcd(etcd, seconds);
    process.stderr.write(`round ${round + 1}: ${describe(ours)}; etcd ${describe(etcd)}\n`);
  }
  const rate = median(ours.perSecond);
  const peerRate = median(etcd.perSecond);
  return [
    againstLimit('one write at a time, p50', 'ms', median(ours.p50Ms), ALONE_MS_MAX, median(etcd.p50Ms)),
    {
      what: 'the same, p99',
      value: round3(median(ours.p99Ms)),
      unit: 'ms',
      peer: round3(median(etcd.p99Ms)),
    },
    againstFloor(`writes, ${IN_FLIGHT} in flight`, '1/s', rate, Math.max(WRITES_TARGET, peerRate), peerRate),
  ];
}

async function measureOurs(figures: Figures, seconds: number): Promise<void> {
  const ports = await Promise.all(Array.from({ length: MEMBERS }, () => freePort()));
  await using cluster = await RaftCluster.start({ addresses: ports.map((port) => `127.0.0.1:${port}`) });
  const leader = await cluster.leader();
  const load = (inFlight: number) =>
    leader.request<{ count: number; seconds: number; latenciesMs: number[] }>({
      op: 'load',
      inFlight,
      bytes: WRITE_BYTES,
      seconds,
    });
  await load(IN_FLIGHT);
  const alone = await load(1);
  pushLatencies(figures, alone.latenciesMs);
  const many = await load(IN_FLIGHT);
  figures.perSecond.push(many.count / many.seconds);
}

async function measureEtcd(figures: Figures, seconds: number): Promise<void> {
  await using etcd = await RealEtcd.start({ members: MEMBERS });
  const { kv } = etcd.client;
  const value = Buffer.alloc(WRITE_BYTES, 120);
  let keys = 0;
  const put = () => ({ key: Buffer.from(`/bench/${++keys}`), value });
  const latenciesMs: number[] = [];
  const endMs = performance.now() + seconds * 1000;
  for (let nowMs = performance.now(); nowMs < endMs; ) {
    await kv.put(put());
    const doneMs = performance.now();
    latenciesMs.push(doneMs - nowMs);
    nowMs = doneMs;
  }
  pushLatencies(figures, latenciesMs);
  let count = 0;
  const startedMs = performance.now();
  const writer = async () => {
    while (performance.now() < startedMs + seconds * 1000) {
      await kv.txn({ success: Array.from({ length: PEER_OPERATIONS }, () => ({ request_put: put() })) });
      count += PEER_OPERATIONS;
    }
  };
  await Promise.all(Array.from({ length: PEER_TRANSACTIONS }, writer));
  figures.perSecond.push((count / (performance.now() - startedMs)) * 1000);
}

function pushLatencies({ p50Ms, p99Ms }: Figures, latenciesMs: readonly number[]): void {
  p50Ms.push(percentile(latenciesMs, 0.5));
  p99Ms.push(percentile(latenciesMs, 0.99));
}

function describe({ p50Ms, perSecond }: Figures): string {
  return `${p50Ms.at(-1)?.toFixed(2)} ms alone, ${Math.round(perSecond.at(-1) ?? 0)}/s`;
}

function round3(value: number): number {
  return Number(value.toPrecision(3));
}
