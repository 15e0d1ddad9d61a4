// A process that has a local network open, so that a test can kill it. Arguments: run directory, state directory,
// engine id. It answers calls.

import { networkLog } from '../../agent/log.ts';
import { destroyLocalNetwork, openLocalNetwork } from '../../agent/network/local-network.ts';
import { emptyPortConfig } from '../../core/generated/objects.ts';
import { answerCalls } from './answer-calls.ts';

const [runDir = '', stateDir = '', engineId = ''] = process.argv.slice(2);
const network = await openLocalNetwork({ runDir, stateDir, engineId, logger: networkLog });

/** Attaches and detaches that many endpoints; milliseconds per operation. */
async function measure(count: number): Promise<{ attachMs: number; detachMs: number }> {
  const ids = Array.from({ length: count }, (_, index) => `measured${index}`);
  const started = performance.now();
  for (const id of ids) {
    const ports = [{ ...emptyPortConfig, targetPort: 80, publishedPort: 0, publishMode: 'host' } as const];
    await network.attach({ id, ports });
  }
  const attached = performance.now();
  for (const id of ids) await network.detach(id);
  return {
    attachMs: (attached - started) / count,
    detachMs: (performance.now() - attached) / count,
  };
}

await answerCalls({
  attach: network.attach.bind(network),
  drain: network.drain.bind(network),
  detach: network.detach.bind(network),
  list: network.list.bind(network),
  repair: async () => network.repair(),
  measure,
  destroy: network.destroy.bind(network),
  destroyElsewhere: ([id, run, state]: [string, string, string]) =>
    destroyLocalNetwork({ engineId: id, runDir: run, stateDir: state }),
});
