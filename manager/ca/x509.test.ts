// Certificates as others see them: openssl, Node's own reader, and both ends of TLS connections.

import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createConnection } from 'node:net';
import { test } from 'node:test';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { describeCertificate } from '../../rpc/certificates.ts';
import { aLeaf, aRoot, aSubject, HOUR_MS, type Leaf, openssl } from '../../test/support/cluster-authority.ts';
import type { Root } from './certificate-tool.ts';
import { x509Tool } from './x509.ts';

const DAY_MS = 24 * HOUR_MS;

/** The text that openssl makes of a certificate. */
const textOf = (pem: string) => openssl(['x509', '-in', 'a.pem', '-noout', '-text'], { 'a.pem': pem });

/** What openssl says of a chain: 'ok', or the reason against it. */
function verdict(trustedPem: string, leafPem: string, intermediatesPem = ''): string {
  const files = { 'roots.pem': trustedPem, 'leaf.pem': leafPem, 'more.pem': intermediatesPem };
  const more = intermediatesPem === '' ? [] : ['-untrusted', 'more.pem'];
  const args = [
    'verify',
    '-x509_strict',
    '-purpose',
    'sslserver',
    '-CAfile',
    'roots.pem',
    ...more,
    'leaf.pem',
  ];
  try {
    return openssl(args, files).includes('leaf.pem: OK') ? 'ok' : 'not ok';
  } catch (error) {
    return String((error as { stderr?: unknown }).stderr);
  }
}

/** Both ends show a certificate and believe `trustedPem`; resolves with what each saw of the other. */
async function handshake(server: Leaf, client: Leaf, trusted: { server: string; client: string }) {
  const listener = createServer({
    cert: server.certificatePem,
    key: server.keyPem,
    ca: trusted.server,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const accepted = once(listener, 'secureConnection').then(([socket]) => socket as TLSSocket);
  const refused = once(listener, 'tlsClientError').then(([error]) => Promise.reject(error));
  const socket = connect({
    socket: createConnection((listener.address() as AddressInfo).port, '127.0.0.1'),
    cert: client.certificatePem,
    key: client.keyPem,
    ca: trusted.client,
    servername: 'swarm-manager',
  });
  try {
    const [peer] = await Promise.all([Promise.race([accepted, refused]), once(socket, 'secureConnect')]);
    return { client: peer.getPeerCertificate().subject.CN, server: socket.getPeerCertificate().subject.CN };
  } finally {
    accepted.catch(() => {});
    refused.catch(() => {});
    socket.on('error', () => {});
    socket.destroy();
    listener.close();
  }
}

test('a root is an authority for twenty years, by the word of openssl', async () => {
  const nowMs = Date.UTC(2030, 0, 1);
  const { certificatePem, keyPem } = await x509Tool.createRoot({ clusterId: 'cluster1', nowMs });
  const text = textOf(certificatePem);
  assert.match(text, /Subject: O = cluster1, CN = swarm-ca/);
  assert.match(text, /Issuer: O = cluster1, CN = swarm-ca/);
  assert.match(text, /Basic Constraints: critical\s+CA:TRUE\n/);
  assert.match(text, /Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
  assert.match(text, /Subject Key Identifier/);
  assert.match(text, /NIST CURVE: P-256/);
  assert.match(text, /Signature Algorithm: ecdsa-with-SHA256/);
  assert.match(text, /Not Before: Dec 31 23:00:00 2029 GMT/);
  assert.match(text, /Not After : (Dec 31|Jan {2}1) .* (2049|2050) GMT/);
  assert.ok(keyPem.startsWith('-----BEGIN PRIVATE KEY-----\n'));
  assert.match(openssl(['pkey', '-in', 'key.pem', '-noout', '-text'], { 'key.pem': keyPem }), /P-256/);
});

test("a node's certificate says who it is in which cluster, and what its key is for", async () => {
  const root = await aRoot();
  const leaf = await aLeaf(root, { nodeId: 'node7', role: 'manager' });
  const text = textOf(leaf.certificatePem);
  assert.match(text, /Subject: O = cluster1, OU = swarm-manager, CN = node7/);
  assert.match(text, /Basic Constraints: critical\s+CA:FALSE\n/);
  assert.match(text, /Key Usage: critical\s+Digital Signature\n/);
  assert.match(text, /TLS Web Server Authentication, TLS Web Client Authentication\n/);
  assert.match(text, /DNS:swarm-manager, DNS:node7\n/);
  const [own = ''] = /(?<=Subject Key Identifier: \n\s+)[\dA-F:]+/.exec(textOf(root.certificatePem)) ?? [];
  assert.ok(own.length > 50 && text.includes(own), "the root's key is named");
  assert.equal(verdict(root.certificatePem, leaf.certificatePem), 'ok');
});

test('a request is signed with its key, and openssl reads both', async () => {
  const { requestPem, keyPem } = await x509Tool.createKeyAndRequest({ nodeId: 'node1' });
  const files = { 'request.pem': requestPem, 'key.pem': keyPem };
  const text = openssl(['req', '-in', 'request.pem', '-verify', '-noout', '-text'], files);
  assert.match(text, /Subject: CN = node1/);
  const ofRequest = openssl(['req', '-in', 'request.pem', '-noout', '-pubkey'], files);
  assert.equal(ofRequest, openssl(['pkey', '-in', 'key.pem', '-pubout'], files));
});

test('every certificate has a serial number of its own, positive and long', async () => {
  const root = await aRoot();
  const leaves = await Promise.all(Array.from({ length: 20 }, () => aLeaf(root)));
  const serials = leaves.map(({ certificatePem }) => describeCertificate(certificatePem).serial);
  assert.equal(new Set(serials).size, 20);
  for (const serial of serials) assert.match(serial, /^[\da-f]{26,40}$/);
});

test('of a request only the key counts: what it says of itself is not in the certificate', async () => {
  const root = await aRoot();
  const { requestPem } = await x509Tool.createKeyAndRequest({ nodeId: 'somebody-else' });
  const times = { nowMs: Date.now(), lifeMs: HOUR_MS };
  const pem = await x509Tool.issue({ requestPem, root, subject: aSubject(), ...times });
  assert.equal(describeCertificate(pem).nodeId, 'node1');
  assert.ok(!textOf(pem).includes('somebody-else'));
});

test("a certificate lasts as long as asked, and never longer than the root's", async () => {
  const nowMs = Date.UTC(2030, 0, 1);
  const root = await aRoot(nowMs, 10 * DAY_MS);
  const end = async (lifeMs: number) =>
    describeCertificate((await aLeaf(root, {}, { nowMs, lifeMs })).certificatePem).notAfterMs;
  assert.equal(await end(DAY_MS), nowMs + DAY_MS);
  assert.equal(await end(90 * DAY_MS), nowMs + 10 * DAY_MS);
  await assert.rejects(aLeaf(root, {}, { nowMs: nowMs + 11 * DAY_MS }), /root certificate: it has expired/);
});

test('times beyond 2049 have the form that they must have from then on', async () => {
  const nowMs = Date.UTC(2048, 0, 1) + 123;
  const { certificatePem } = await x509Tool.createRoot({ clusterId: 'c', nowMs });
  const { notAfterMs } = describeCertificate(certificatePem);
  assert.equal(new Date(notAfterMs).getUTCFullYear(), 2067);
  const asn1 = openssl(['asn1parse', '-in', 'a.pem'], { 'a.pem': certificatePem });
  assert.match(asn1, /UTCTIME +:471231230000Z/);
  assert.match(asn1, /GENERALIZEDTIME +:2067\d{10}Z/);
});

const request = (...args: string[]) =>
  openssl(['req', '-new', '-nodes', '-subj', '/CN=a', '-keyout', 'k', ...args]);
const P384 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'];
for (const [what, requestPem, problem] of [
  ['with an RSA key', request('-newkey', 'rsa:2048'), /its key is RSA/],
  ['with a key of another curve', request(...P384), /its key is P-384; nodes have ECDSA P-256/],
  ['that is none', 'nothing', /cannot be read/],
  ['that is too long', 'A'.repeat(9_000), /8192 are the most/],
] as const)
  test(`a request ${what} is refused`, async () => {
    const options = {
      requestPem,
      root: await aRoot(),
      subject: aSubject(),
      nowMs: Date.now(),
      lifeMs: HOUR_MS,
    };
    await assert.rejects(x509Tool.issue(options), { code: 'invalid-argument', message: problem });
  });

test("a request for somebody else's key is refused", async () => {
  const [one, other] = await Promise.all([x509Tool.createKeyAndRequest(), x509Tool.createKeyAndRequest()]);
  const der = (pem: string) => Buffer.from(pem.replace(/-----.*-----/g, ''), 'base64');
  // The key is the 65 bytes of a point; the signature stands behind it and stays.
  const forged = der(one.requestPem);
  const point = (bytes: Buffer) => bytes.indexOf(Buffer.from([0x03, 0x42, 0x00, 0x04])) + 4;
  der(other.requestPem).copy(
    forged,
    point(forged),
    point(der(other.requestPem)),
    point(der(other.requestPem)) + 64,
  );
  const requestPem = `-----BEGIN CERTIFICATE REQUEST-----\n${forged.toString('base64')}\n-----END CERTIFICATE REQUEST-----`;
  const options = {
    requestPem,
    root: await aRoot(),
    subject: aSubject(),
    nowMs: Date.now(),
    lifeMs: HOUR_MS,
  };
  await assert.rejects(x509Tool.issue(options), { code: 'invalid-argument', message: /signature/ });
});

const pkcs8 = ({ privateKey }: { privateKey: KeyObject }) =>
  privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

/** As an operator makes it, with names of their own. */
function operatorsRoot(keyPem: string): Root {
  const args = ['req', '-x509', '-key', 'key.pem', '-subj', '/C=AT/O=Ours/CN=our root', '-days', '100'];
  // openssl's strict check wants it of a root, its "req" leaves it out.
  args.push('-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  return { keyPem, certificatePem: openssl(args, { 'key.pem': keyPem }) };
}

for (const [kind, keyPem] of [
  ['P-256', pkcs8(generateKeyPairSync('ec', { namedCurve: 'P-256' }))],
  ['P-384', pkcs8(generateKeyPairSync('ec', { namedCurve: 'P-384' }))],
  ['P-521', pkcs8(generateKeyPairSync('ec', { namedCurve: 'P-521' }))],
  ['RSA', pkcs8(generateKeyPairSync('rsa', { modulusLength: 2048 }))],
] as const)
  test(`an operator's own root with a key of ${kind} signs nodes and other roots, and is cross-signed`, async () => {
    const root = operatorsRoot(keyPem);
    const nowMs = Date.now();
    const leaf = await aLeaf(root, {}, { nowMs });
    assert.equal(verdict(root.certificatePem, leaf.certificatePem), 'ok');
    const ours = await aRoot(nowMs);
    const byOurs = await x509Tool.crossSign({ newRootPem: root.certificatePem, oldRoot: ours, nowMs });
    assert.equal(verdict(ours.certificatePem, leaf.certificatePem, byOurs), 'ok');
    const byTheirs = await x509Tool.crossSign({ newRootPem: ours.certificatePem, oldRoot: root, nowMs });
    const next = await aLeaf(ours);
    assert.equal(verdict(root.certificatePem, next.certificatePem, byTheirs), 'ok');
  });

test("a root's key that is not its own, or of a kind we do not know, is refused", async () => {
  const root = await aRoot();
  const other = await aRoot();
  await assert.rejects(aLeaf({ ...root, keyPem: other.keyPem }), /root key: it does not belong/);
  await assert.rejects(aLeaf({ ...root, keyPem: 'none' }), /no private key in PEM/);
  const unknown = operatorsRoot(pkcs8(generateKeyPairSync('ed25519')));
  await assert.rejects(aLeaf(unknown), /ed25519 is not supported/);
});

test('two nodes of one cluster connect, and see who the other is', async () => {
  const root = await aRoot();
  const server = await aLeaf(root, { nodeId: 'manager1', role: 'manager' });
  const client = await aLeaf(root, { nodeId: 'worker1' });
  const trusted = { server: root.certificatePem, client: root.certificatePem };
  assert.deepEqual(await handshake(server, client, trusted), { client: 'worker1', server: 'manager1' });
});

test('a connection is refused to a foreign, an expired and a not yet valid certificate, on either side', async () => {
  const root = await aRoot(Date.now() - 2 * DAY_MS);
  const good = await aLeaf(root, { nodeId: 'good', role: 'manager' });
  const trusted = { server: root.certificatePem, client: root.certificatePem };
  const foreign = await aLeaf(await aRoot(), { role: 'manager' });
  const expired = await aLeaf(
    root,
    { role: 'manager' },
    { nowMs: Date.now() - 2 * HOUR_MS, lifeMs: HOUR_MS },
  );
  const early = await aLeaf(root, { role: 'manager' }, { nowMs: Date.now() + 3 * HOUR_MS });
  assert.equal((await handshake(good, good, trusted)).client, 'good');
  for (const [bad, reason] of [
    [foreign, /UNABLE_TO_VERIFY|SELF_SIGNED|CERT_SIGNATURE_FAILURE/],
    [expired, /CERT_HAS_EXPIRED/],
    [early, /CERT_NOT_YET_VALID/],
  ] as const) {
    await assert.rejects(handshake(bad, good, trusted), { code: reason });
    await assert.rejects(handshake(good, bad, trusted));
  }
});

test('the cross-signed root makes nodes believe the new root that know only the old one, and nobody else', async () => {
  const [oldRoot, newRoot, thirdRoot] = await Promise.all([aRoot(), aRoot(), aRoot()]);
  const cross = await x509Tool.crossSign({ newRootPem: newRoot.certificatePem, oldRoot, nowMs: Date.now() });
  const leaf = await aLeaf(newRoot, { nodeId: 'renewed', role: 'manager' });
  const chain = { ...leaf, certificatePem: leaf.certificatePem + cross };
  const behind = await aLeaf(oldRoot, { nodeId: 'behind', role: 'manager' });

  assert.equal(verdict(oldRoot.certificatePem, leaf.certificatePem, cross), 'ok');
  assert.equal(verdict(newRoot.certificatePem, leaf.certificatePem, cross), 'ok');
  assert.notEqual(verdict(oldRoot.certificatePem, leaf.certificatePem), 'ok', 'not without it');
  assert.notEqual(verdict(thirdRoot.certificatePem, leaf.certificatePem, cross), 'ok');

  const both = oldRoot.certificatePem + newRoot.certificatePem;
  const met = await handshake(chain, behind, { server: both, client: oldRoot.certificatePem });
  assert.deepEqual(met, { client: 'behind', server: 'renewed' });
  assert.equal(
    (await handshake(behind, chain, { server: oldRoot.certificatePem, client: both })).client,
    'renewed',
  );
  const onlyNew = { server: newRoot.certificatePem, client: newRoot.certificatePem };
  assert.equal((await handshake(chain, chain, onlyNew)).server, 'renewed');
  const onlyOld = { server: both, client: oldRoot.certificatePem };
  await assert.rejects(handshake(leaf, behind, onlyOld), 'without the cross-signed root');
});

test('a cross-signed root lasts no longer than either root', async () => {
  const nowMs = Date.now();
  const [long, short] = await Promise.all([aRoot(nowMs, 100 * DAY_MS), aRoot(nowMs, 10 * DAY_MS)]);
  for (const [next, oldRoot] of [
    [long, short],
    [short, long],
  ] as const) {
    const cross = await x509Tool.crossSign({ newRootPem: next.certificatePem, oldRoot, nowMs });
    assert.equal(describeCertificate(cross).notAfterMs, describeCertificate(short.certificatePem).notAfterMs);
  }
});
