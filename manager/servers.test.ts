import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { SwarmError } from '../core/errors.ts';
import { emptyCluster } from '../core/generated/objects.ts';
import { systemClock } from '../node/system-clock.ts';
import { emptyIssueCertificateRequest } from '../proto/generated/membership.ts';
import type { Caller } from '../rpc/caller.ts';
import type { CallContext } from '../rpc/server.ts';
import { MemoryLog } from '../test/support/memory-log.ts';
import { newIdentities } from '../test/support/test-authority.ts';
import { IdentityHolder } from './identity-holder.ts';
import { nodeCaOf } from './servers.ts';
import { Store } from './store/store.ts';

const YEAR_MS = 365 * 86_400_000;

/** A manager that knows of no leader, with a certificate or none. */
async function leaderless(certificate: 'none' | 'valid' | 'expired', { knowsIssuer = true } = {}) {
  const identity = defined((await newIdentities(['own'])).get('own'), 'an identity');
  const { roots } = knowsIssuer ? identity : defined((await newIdentities(['own'])).get('own'), 'another');
  const nowMs = () => Date.now() + (certificate === 'expired' ? YEAR_MS : 0);
  const clock = { ...systemClock, nowMs };
  const answer = { nodeId: 'own', certificate: 'by this manager', roots: '' };
  return nodeCaOf({
    nodeCa: { getRoots: () => ({ certificates: '', nowMs: 0 }), issueCertificate: () => answer },
    identity: new IdentityHolder(certificate === 'none' ? undefined : identity),
    leader: { clock, find: () => Promise.reject(new SwarmError('unavailable', 'nobody leads')) },
    store: await storeWithRoot(roots),
  });
}

async function storeWithRoot(certificate: string): Promise<Store> {
  const store = new Store(new MemoryLog(), systemClock);
  await store.open();
  const secrets = { ...emptyCluster.secrets, root: { certificate, key: '' } };
  await store.update((tx) => tx.create('cluster', { ...emptyCluster, id: 'c', secrets }));
  return store;
}

const by = (role: Caller['role']) =>
  ({ caller: { role, nodeId: 'own' }, signal: AbortSignal.timeout(10_000) }) as CallContext;

for (const certificate of ['none', 'expired'] as const)
  test(`a manager whose certificate is ${certificate} signs for its own node without a leader`, async () => {
    const { issueCertificate } = await leaderless(certificate);

    assert.equal(
      (await issueCertificate(emptyIssueCertificateRequest, by('local'))).certificate,
      'by this manager',
    );
    await assert.rejects(
      async () => issueCertificate(emptyIssueCertificateRequest, by('worker')),
      /nobody leads/,
    );
  });

test('a manager with a valid certificate leaves it to the leader: its own roots may be old', async () => {
  const { issueCertificate } = await leaderless('valid');

  await assert.rejects(
    async () => issueCertificate(emptyIssueCertificateRequest, by('local')),
    /nobody leads/,
  );
});

test('a manager that does not know who signed its expired certificate does not sign another: its roots are old', async () => {
  const { issueCertificate } = await leaderless('expired', { knowsIssuer: false });

  await assert.rejects(
    async () => issueCertificate(emptyIssueCertificateRequest, by('local')),
    /nobody leads/,
  );
});
