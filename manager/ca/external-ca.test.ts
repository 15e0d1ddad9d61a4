// An authority outside, as it should be (Debian's CFSSL), and as it should not (servers of our own).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { systemClock } from '../../node/system-clock.ts';
import { describeCertificate, verifyChain } from '../../rpc/certificates.ts';
import { aLeaf, aRoot, aSubject, HOUR_MS, openssl } from '../../test/support/cluster-authority.ts';
import { missingForCfssl, startCfssl } from '../../test/support/real-cfssl.ts';
import { freePort } from '../../test/support/real-registry.ts';
import type { Root } from './certificate-tool.ts';
import { type ExternalCa, type ExternalRequest, issueExternally } from './external-ca.ts';
import { x509Tool } from './x509.ts';

const withCfssl = { skip: missingForCfssl };

const authority = (url: string, change: Partial<ExternalCa> = {}): ExternalCa => ({
  url,
  caCertPem: '',
  options: {},
  ...change,
});

async function aRequest(root: Root, change: Partial<ExternalRequest> = {}): Promise<ExternalRequest> {
  const { requestPem } = await x509Tool.createKeyAndRequest();
  return { requestPem, subject: aSubject(), lifeMs: 24 * HOUR_MS, rootsPem: root.certificatePem, ...change };
}

/** A certificate for 127.0.0.1 that is signed by itself. */
function serverCertificate() {
  const key = openssl(['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256']);
  const args = ['req', '-x509', '-key', 'k.pem', '-subj', '/CN=ca', '-days', '2'];
  const certificatePem = openssl([...args, '-addext', 'subjectAltName=IP:127.0.0.1'], { 'k.pem': key });
  return { certificatePem, keyPem: key };
}

test('cfssl issues what is asked for, for workers and for managers', withCfssl, async () => {
  const root = await aRoot();
  await using cfssl = await startCfssl(root);
  for (const role of ['worker', 'manager'] as const) {
    const asked = await aRequest(root, { subject: aSubject({ role }) });
    const pem = await issueExternally([authority(cfssl.url)], asked, systemClock);
    const { nodeId, clusterId, role: issuedRole } = describeCertificate(pem);
    assert.deepEqual({ nodeId, clusterId, role: issuedRole }, aSubject({ role }));
    verifyChain(pem, root.certificatePem, Date.now());
    const text = openssl(['x509', '-in', 'a.pem', '-noout', '-text'], { 'a.pem': pem });
    assert.ok(text.includes(`DNS:node1, DNS:swarm-${role}`));
  }
});

test("cfssl's profile can be chosen by option", withCfssl, async () => {
  const root = await aRoot();
  const usages = ['signing', 'server auth', 'client auth'];
  await using cfssl = await startCfssl(root, { profiles: { short: { usages, expiry: '2h' } } });
  const short = authority(cfssl.url, { options: { profile: 'short' } });
  const pem = await issueExternally([short], await aRequest(root, { lifeMs: 2 * HOUR_MS }), systemClock);
  const { notBeforeMs, notAfterMs } = describeCertificate(pem);
  assert.equal(notAfterMs - notBeforeMs, 2 * HOUR_MS);
});

test('cfssl is asked over TLS: with the certificate of the flag, and of clients', withCfssl, async () => {
  const root = await aRoot();
  const tls = serverCertificate();
  await using cfssl = await startCfssl(root, { tls: { ...tls, clientsPem: root.certificatePem } });
  const trusted = authority(cfssl.url, { caCertPem: tls.certificatePem });
  const identity = await aLeaf(root, { role: 'manager' });
  const ask = async (by: ExternalCa, change: Partial<ExternalRequest>) =>
    issueExternally([by], await aRequest(root, change), systemClock);
  assert.equal(describeCertificate(await ask(trusted, { identity })).nodeId, 'node1');
  await assert.rejects(ask(trusted, {}), {
    code: 'unavailable',
    message: /certificate required|bad certificate|reset/,
  });
  await assert.rejects(ask(authority(cfssl.url), { identity }), {
    code: 'unavailable',
    message: /self-signed/,
  });
});

const AUTHORITY_PROFILE = {
  ca_constraint: { is_ca: true },
  usages: ['cert sign', 'server auth', 'client auth'],
};

for (const [what, profile, message, hint] of [
  ['lasts longer than asked', { expiry: '48h' }, /lasts 48 hours; 24 hours are asked for/, /--cert-expiry/],
  [
    'clients cannot use',
    { usages: ['signing', 'server auth'] },
    /not for clients and servers/,
    /client auth/,
  ],
  ['is an authority itself', AUTHORITY_PROFILE, /not believed.*not of a node/, /root/],
] as const)
  test(`a certificate of cfssl that ${what} is not taken`, withCfssl, async () => {
    const root = await aRoot();
    await using cfssl = await startCfssl(root, { profile });
    const asking = issueExternally([authority(cfssl.url)], await aRequest(root), systemClock);
    await assert.rejects(asking, (error: Error & { hint?: string; code?: string }) => {
      assert.equal(error.code, 'failed-precondition');
      assert.match(error.message, message);
      assert.match(error.hint ?? '', hint);
      return true;
    });
  });

test('a certificate of cfssl for an RSA key is not taken', withCfssl, async () => {
  const root = await aRoot();
  await using cfssl = await startCfssl(root);
  const requestPem = openssl([
    'req',
    '-new',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-subj',
    '/CN=a',
    '-keyout',
    'k.pem',
  ]);
  const asking = issueExternally([authority(cfssl.url)], await aRequest(root, { requestPem }), systemClock);
  await assert.rejects(asking, { code: 'failed-precondition', message: /a key that is not ECDSA P-256/ });
});

test('a certificate of another root than the cluster has is not taken', withCfssl, async () => {
  const [root, other] = await Promise.all([aRoot(), aRoot()]);
  await using cfssl = await startCfssl(other);
  const asking = issueExternally([authority(cfssl.url)], await aRequest(root), systemClock);
  await assert.rejects(asking, {
    code: 'failed-precondition',
    message: /is not believed.*not of an authority/,
  });
});

test("cfssl's refusal is told in its words", withCfssl, async () => {
  const root = await aRoot();
  await using cfssl = await startCfssl(root);
  const asked = { ...(await aRequest(root)), requestPem: 'nothing' };
  const asking = issueExternally([authority(cfssl.url)], asked, systemClock);
  await assert.rejects(asking, {
    code: 'failed-precondition',
    message: /refuses: CSR Decode failed \(9002\)/,
  });
});

/** A server that answers every request in the given way. */
async function answering(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/sign`,
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** A server that gives this certificate to everybody. */
const giving = (certificate: string) =>
  answering((_, response) =>
    response.end(JSON.stringify({ success: true, result: { certificate }, errors: [] })),
  );

for (const [what, change, message] of [
  ['of another node', { nodeId: 'node2' }, /has nodeId "node2", not "node1"/],
  ['of another role', { role: 'manager' }, /has role "manager", not "worker"/],
  ['of another cluster', { clusterId: 'c2' }, /has clusterId "c2", not "cluster1"/],
  ['for another key', {}, /is for another key/],
] as const)
  test(`a certificate ${what} is not taken`, async () => {
    const root = await aRoot();
    using server = await giving((await aLeaf(root, change)).certificatePem);
    const asking = issueExternally([authority(server.url)], await aRequest(root), systemClock);
    await assert.rejects(asking, { code: 'failed-precondition', message });
  });

for (const [what, status, body, code, message] of [
  ['no JSON', 200, 'hello', 'failed-precondition', /answers 200, and no JSON/],
  ['JSON of something else', 200, '[1]', 'failed-precondition', /refuses: status 200/],
  ['null', 200, 'null', 'failed-precondition', /answers 200, and no JSON/],
  ['a failure of its own', 502, '<html>', 'unavailable', /answers 502/],
  ['success without a certificate', 200, '{"success":true,"result":{}}', 'failed-precondition', /refuses/],
  [
    'no certificate for one',
    200,
    '{"success":true,"result":{"certificate":"x"}}',
    'failed-precondition',
    /believed/,
  ],
  ['megabytes', 200, 'x'.repeat(3_000_000), 'unavailable', /no end/],
] as const)
  test(`an authority that answers with ${what} is said to`, async () => {
    using server = await answering((_, response) => response.writeHead(status).end(body));
    const asking = issueExternally([authority(server.url)], await aRequest(await aRoot()), systemClock);
    await assert.rejects(asking, { code, message });
  });

test('an authority that is silent is given up after five seconds, also in the middle of its answer', async () => {
  for (const isMidway of [false, true]) {
    const clock = new FakeClock(Date.now());
    const reached = Promise.withResolvers<void>();
    using server = await answering((_, response) => {
      if (isMidway) response.write('{');
      reached.resolve();
    });
    const asking = issueExternally([authority(server.url)], await aRequest(await aRoot()), clock);
    await reached.promise;
    clock.advance(5_000);
    await assert.rejects(asking, { code: 'deadline-exceeded', message: /not answered within 5 seconds/ });
  }
});

test('the next authority is asked when one cannot help; the last error is told, without password', async () => {
  const root = await aRoot();
  const asked = await aRequest(root);
  const pem = await x509Tool.issue({ ...asked, root, nowMs: Date.now() });
  using good = await giving(pem);
  const dead = authority(`http://name:secret@127.0.0.1:${await freePort()}/sign`);
  assert.equal(await issueExternally([dead, authority(good.url)], asked, systemClock), pem);
  await assert.rejects(
    issueExternally([dead], asked, systemClock),
    (error: Error & { code?: string }) =>
      error.code === 'unavailable' && /ECONNREFUSED/.test(error.message) && !error.message.includes('secret'),
  );
  await assert.rejects(issueExternally([], asked, systemClock), { code: 'failed-precondition' });
});
