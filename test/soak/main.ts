// `npm run soak -- network|faults [--minutes 10] [--seed N]`: changes a cluster of real nodes for so long under continuous
// requests, or kills parts of a node over and over. Ends with an error when a request failed that no announced cut explains,
// or when a service did not come up or left something behind.

import { parseArgs } from 'node:util';
import { FaultHunt } from './fault-hunt.ts';
import { NetworkSoak } from './network-soak.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' } },
});
const [what = ''] = positionals;
if (what !== 'network' && what !== 'faults') {
  process.stderr.write(`there is no soak "${what}"; there are: network, faults\n`);
  process.exit(2);
}
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
process.stderr.write(`seed ${seed}\n`);
const durationMs = Number(values.minutes) * 60_000;
const say = (line: string) => process.stderr.write(`${line}\n`);
if (what === 'network') {
  const report = await NetworkSoak.run('tss', { seed, durationMs, say });
  process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
  process.exitCode = report.failures.length === 0 ? 0 : 1;
} else {
  const untilMs = Date.now() + durationMs;
  const report = await FaultHunt.run('tsf', { seed, goesOn: () => Date.now() < untilMs, say });
  process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
}
