import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { SwarmError } from '../core/errors.ts';
import { systemClock } from '../node/system-clock.ts';
import { emptyIssueCertificateRequest } from '../proto/generated/membership.ts';
import type { Caller } from '../rpc/caller.ts';
import type { CallContext } from '../rpc/server.ts';
import { newIdentities } from '../test/support/test-authority.ts';
import { IdentityHolder } from './identity-holder.ts';
import { nodeCaOf } from './servers.ts';

const YEAR_MS = 365 * 86_400_000;

/** A manager that knows of no leader, with a certificate or none. */
async function leaderless(certificate: 'none' | 'valid' | 'expired') {
  const identity = defined((await newIdentities(['own'])).get('own'), 'an identity');
  const nowMs = () => Date.now() + (certificate === 'expired' ? YEAR_MS : 0);
  const clock = { ...systemClock, nowMs };
  const answer = { nodeId: 'own', certificate: 'by this manager', roots: '' };
  return nodeCaOf({
    nodeCa: { getRoots: () => ({ certificates: '', nowMs: 0 }), issueCertificate: () => answer },
    identity: new IdentityHolder(certificate === 'none' ? undefined : identity),
    leader: { clock, find: () => Promise.reject(new SwarmError('unavailable', 'nobody leads')) },
  });
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
