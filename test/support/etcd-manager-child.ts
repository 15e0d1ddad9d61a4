// A manager over etcd in a process of its own, to be killed and held by tests: says when it has opened its store, then
// creates the services that it is sent the names of.

import { hasCode } from '../../core/errors.ts';
import type { EtcdSettings } from '../../manager/etcd-log/settings.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { startEtcdManager } from './etcd-cluster.ts';
import { aService } from './store-contract.ts';

setLogLevel('silent');
const { store } = await startEtcdManager(JSON.parse(process.argv[2] ?? '') as EtcdSettings, 'child');
process.on('message', ({ create }: { create: string }) => {
  store
    .update((tx) => tx.create('service', aService(create)))
    .then(
      () => process.send?.({ code: 'ok' }),
      (error: unknown) =>
        process.send?.({ code: hasCode(error, 'unavailable') ? 'unavailable' : String(error) }),
    );
});
process.on('disconnect', () => process.exit());
process.send?.('ready');
