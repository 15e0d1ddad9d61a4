// `npm run soak -- network [--minutes 10] [--seed N]`: changes a cluster of real nodes for so long under continuous requests.
// Ends with an error when a request failed that no announced cut explains.

import { parseArgs } from 'node:util';
import { NetworkSoak } from './network-soak.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' } },
});
const [what = ''] = positionals;
if (what !== 'network') {
  process.stderr.write(`there is no soak "${what}"; there is: network\n`);
  process.exit(2);
}
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
process.stderr.write(`seed ${seed}\n`);
const report = await NetworkSoak.run('tss', {
  seed,
  durationMs: Number(values.minutes) * 60_000,
  say: (line) => process.stderr.write(`${line}\n`),
});
process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
process.exitCode = report.failures.length === 0 ? 0 : 1;
