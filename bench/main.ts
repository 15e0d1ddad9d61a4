// `npm run bench -- NAME [--quick] [--json]`: side by side with a peer, in one run, as ratios.

import { deployBench } from './deploy.ts';
import { engineBench } from './engine.ts';
import { etcdStoreBench } from './etcd-store.ts';
import { failoverBench } from './failover.ts';
import { installBench } from './install.ts';
import { logBench } from './log.ts';
import { networkBench } from './network.ts';
import { printReport, type Row } from './report.ts';
import { scheduleBench } from './schedule.ts';
import { snapshotBench } from './snapshot.ts';
import { storeBench } from './store.ts';

export interface BenchOptions {
  /** Under 50 seconds: fewer rounds, the same work. */
  readonly isQuick: boolean;
}

const BENCHES: Record<string, (options: BenchOptions) => Promise<Row[]>> = {
  deploy: deployBench,
  engine: engineBench,
  'etcd-store': etcdStoreBench,
  failover: failoverBench,
  install: installBench,
  log: logBench,
  network: networkBench,
  schedule: scheduleBench,
  snapshot: snapshotBench,
  store: storeBench,
};

const names = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const flags = new Set(process.argv.slice(2).filter((word) => word.startsWith('--')));
const [name = ''] = names;
const bench = BENCHES[name];
if (bench === undefined || [...flags].some((flag) => !['--quick', '--json'].includes(flag))) {
  process.stderr.write(`usage: npm run bench -- ${Object.keys(BENCHES).join('|')} [--quick] [--json]\n`);
  process.exit(125);
}
const rows = await bench({ isQuick: flags.has('--quick') });
printReport(name, rows, flags.has('--json'));
