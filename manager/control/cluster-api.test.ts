import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import { emptyCluster } from '../../core/generated/objects.ts';
import { emptyRotateAuthorityRequest } from '../../proto/generated/control.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { theCluster } from '../ca/authority.ts';
import type { CertificateTool } from '../ca/certificate-tool.ts';
import { Store } from '../store/store.ts';
import { rotateAuthority } from './cluster-api.ts';

const root = (name: string) => ({ certificate: `certificate of ${name}`, key: `key of ${name}` });

/** A cluster whose root is "first", where somebody does something while the next root is signed for the first time. */
async function rotatedWhile(meanwhile: (store: Store) => Promise<unknown>): Promise<Store> {
  const clock = new FakeClock();
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const secrets = { ...emptyCluster.secrets, root: root('first') };
  await store.update((tx) =>
    tx.create('cluster', { ...emptyCluster, id: 'c', spec: defaultClusterSpec, secrets }),
  );
  let signed = 0;
  const tool: Pick<CertificateTool, 'createRoot' | 'crossSign'> = {
    createRoot: async () => ({ certificatePem: 'certificate of next', keyPem: 'key of next' }),
    crossSign: async ({ newRootPem, oldRoot }) => {
      if (signed++ === 0) await meanwhile(store);
      return `${newRootPem}, signed with ${oldRoot.keyPem}`;
    },
  };
  await rotateAuthority({ store, clock, tool } as never, {
    ...emptyRotateAuthorityRequest,
    certificateLifeMs: 3_600_000,
  });
  return store;
}

const change = (store: Store, cluster: (before: typeof emptyCluster) => Partial<typeof emptyCluster>) =>
  store.update((tx) => {
    const before = theCluster(tx.view);
    tx.update('cluster', { ...before, ...cluster(before) });
  });

test('a root that is signed while another rotation ends is signed anew by the root that it left', async () => {
  const store = await rotatedWhile((store) =>
    change(store, ({ secrets }) => ({ secrets: { ...secrets, root: root('second') } })),
  );

  const { secrets } = theCluster(store.view);
  assert.equal(secrets.root.certificate, 'certificate of second');
  assert.equal(secrets.rotation?.crossCertificate, 'certificate of next, signed with key of second');
});

test('settings that are changed while the next root is signed stay', async () => {
  const store = await rotatedWhile((store) =>
    change(store, ({ spec }) => ({ spec: { ...spec, taskHistoryLimit: 3 } })),
  );

  const { taskHistoryLimit, certificateLifeMs } = theCluster(store.view).spec;
  assert.deepEqual(
    { taskHistoryLimit, certificateLifeMs },
    { taskHistoryLimit: 3, certificateLifeMs: 3_600_000 },
  );
});
