// How long writes stand still when a leader dies, is cut off, or hands over: three managers' logs as real processes,
// mutual TLS and encryption at rest, under load. A client does what a manager does for its callers: it asks whoever
// leads, and asks again when it was certainly refused.

import { setTimeout as delay } from 'node:timers/promises';
import { NetnsLan } from '../test/support/netns-lan.ts';
import { RaftCluster, type RaftProcess, RequestError } from '../test/support/raft-cluster.ts';
import type { BenchOptions } from './main.ts';
import { againstLimit, median, percentile, type Row } from './report.ts';

const KILLS = 50;
const KILLS_QUICK = 15;
const CUTS = 10;
const CUTS_QUICK = 3;
const TRANSFERS = 30;
const TRANSFERS_QUICK = 15;
const PORT = 2377;
const WRITERS = 16;
// The killed one has to be back, and to have caught up, before the next is killed.
const SETTLE_MS = 600;
// New calls arrive while others hang at a leader that is cut off: a writer gives up and asks again.
const PATIENCE_MS = 250;

/** Writers that never stop, and what they saw. */
class Load {
  unknown = 0;
  lastMs = 0;
  readonly #cluster: RaftCluster;
  #waiting: ((atMs: number) => void) | undefined;
  #old: RaftProcess | undefined;
  #isStopped = false;

  constructor(cluster: RaftCluster) {
    this.#cluster = cluster;
    for (let writer = 0; writer < WRITERS; writer++) void this.#write(writer);
  }

  /** The first acknowledgement by somebody who is not `old`: milliseconds of performance.now. */
  nextFrom(old: RaftProcess): Promise<number> {
    this.#old = old;
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  stop(): void {
    this.#isStopped = true;
  }

  async #write(register: number): Promise<void> {
    for (let value = 0; !this.#isStopped; ) {
      const [leader] = this.#cluster.processes
        .filter(({ isLeader, isUp }) => isLeader && isUp)
        .sort((a, b) => b.term - a.term);
      if (leader === undefined) {
        await delay(1);
        continue;
      }
      try {
        const answer = leader.request({ op: 'write', register, value: ++value, padding: 400 });
        const isLate = await Promise.race([answer.then(() => false), delay(PATIENCE_MS, true)]);
        answer.catch(() => {});
        if (isLate) {
          this.unknown++;
          continue;
        }
        this.lastMs = performance.now();
        if (leader !== this.#old) this.#waiting?.(this.lastMs);
      } catch (error) {
        if (error instanceof RequestError && error.isCertain) await delay(1);
        else this.unknown++;
      }
    }
  }
}

/** Bars: kill p50 <= 150 ms, p99 <= 500 ms; silent partition p99 <= 2.5 s; transfer <= 20 ms and no failed call. */
export async function failoverBench({ isQuick }: BenchOptions): Promise<Row[]> {
  using lan = new NetnsLan('bf', 3);
  await using cluster = await RaftCluster.start({
    addresses: lan.hosts.map((_, position) => `${lan.addressOf(position)}:${PORT}`),
    namespaces: lan.hosts,
  });
  const load = new Load(cluster);
  await delay(SETTLE_MS);
  const transfers = await measureTransfers(cluster, load, isQuick ? TRANSFERS_QUICK : TRANSFERS);
  const failed = load.unknown;
  const kills = await measureKills(cluster, load, isQuick ? KILLS_QUICK : KILLS);
  const cuts = await measureCuts(cluster, load, lan, isQuick ? CUTS_QUICK : CUTS);
  load.stop();
  return [
    againstLimit(`leader killed, ${kills.length} times: p50`, 'ms', median(kills), 150),
    againstLimit('the same: p99', 'ms', percentile(kills, 0.99), 500),
    againstLimit(`leader cut off silently, ${cuts.length} times: p99`, 'ms', percentile(cuts, 0.99), 2_500),
    againstLimit(`leadership handed over, ${transfers.length} times: p50`, 'ms', median(transfers), 20),
    againstLimit('the same: calls that failed', 'calls', failed, 0),
  ];
}

async function measureTransfers(cluster: RaftCluster, load: Load, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < count; round++) {
    const leader = await cluster.leader();
    await delay(100);
    const next = load.nextFrom(leader);
    const lastMs = load.lastMs;
    await leader.request({ op: 'transfer' });
    times.push((await next) - lastMs);
  }
  return times;
}

async function measureKills(cluster: RaftCluster, load: Load, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < count; round++) {
    const leader = await cluster.leader();
    const next = load.nextFrom(leader);
    const startedMs = performance.now();
    await leader.kill();
    times.push((await next) - startedMs);
    process.stderr.write(`kill ${round + 1}: ${Math.round(times.at(-1) ?? 0)} ms\n`);
    await leader.start();
    await delay(SETTLE_MS);
  }
  return times;
}

async function measureCuts(
  cluster: RaftCluster,
  load: Load,
  lan: NetnsLan,
  count: number,
): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < count; round++) {
    const leader = await cluster.leader();
    const position = cluster.processes.indexOf(leader);
    const next = load.nextFrom(leader);
    const startedMs = performance.now();
    lan.cut(
      position,
      [0, 1, 2].filter((other) => other !== position),
    );
    times.push((await next) - startedMs);
    process.stderr.write(`cut ${round + 1}: ${Math.round(times.at(-1) ?? 0)} ms\n`);
    lan.heal();
    await delay(3 * SETTLE_MS);
  }
  return times;
}
