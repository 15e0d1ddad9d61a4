import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { x509Tool } from '../manager/ca/x509.ts';
import { aLeaf, aRoot, HOUR_MS, openssl } from '../test/support/cluster-authority.ts';
import {
  BACKDATED_MS,
  describeCertificate,
  issuerDigest,
  renewalAt,
  requireRoot,
  rootDigest,
  splitPem,
  verifyChain,
} from './certificates.ts';

const NOW_MS = Date.UTC(2030, 0, 1);
const DAY_MS = 24 * HOUR_MS;
const AT_NOW = { nowMs: NOW_MS, lifeMs: DAY_MS };

/** A root with a subject as given, by openssl. */
function foreignRoot(subject: string, ...extensions: string[]): string {
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  return openssl([...args, '-keyout', 'k.pem', '-subj', subject, '-days', '10', ...extensions]);
}

test('a certificate is described by what its subject and its times say', async () => {
  const { certificatePem, keyPem } = await aLeaf(await aRoot(NOW_MS), { role: 'manager' }, AT_NOW);
  const { publicKey, serial, ...described } = describeCertificate(certificatePem);
  assert.deepEqual(described, {
    nodeId: 'node1',
    role: 'manager',
    clusterId: 'cluster1',
    notBeforeMs: NOW_MS - BACKDATED_MS,
    notAfterMs: NOW_MS + DAY_MS,
  });
  const ofKey = openssl(['pkey', '-in', 'k.pem', '-pubout'], { 'k.pem': keyPem });
  assert.equal(Buffer.from(publicKey).toString('base64'), ofKey.replace(/-----.*-----|\n/g, ''));
  const said = openssl(['x509', '-in', 'a.pem', '-noout', '-serial'], { 'a.pem': certificatePem });
  assert.equal(said.trim().toLowerCase(), `serial=${serial}`);
});

test('of a chain the first certificate is described', async () => {
  const root = await aRoot();
  const leaf = await aLeaf(root);
  assert.equal(describeCertificate(leaf.certificatePem + root.certificatePem).nodeId, 'node1');
});

test('a root has no role, and a name that is there twice is none', () => {
  const { role, nodeId } = describeCertificate(
    foreignRoot('/CN=one/CN=two/OU=swarm-manager/OU=swarm-worker'),
  );
  assert.deepEqual({ role, nodeId }, { role: undefined, nodeId: '' });
  assert.equal(describeCertificate(foreignRoot('/CN=a/OU=swarm-ca')).role, undefined);
  assert.equal(describeCertificate(foreignRoot('/CN=a/OU=constructor')).role, undefined);
});

test('what is no certificate is refused', () => {
  const garbage = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  for (const pem of ['', 'text', garbage, '-----BEGIN CERTIFICATE-----\n'])
    assert.throws(() => describeCertificate(pem), { code: 'invalid-argument' });
});

test('the digest of a root is that of its DER, wherever the text breaks its lines', async () => {
  const { certificatePem } = await aRoot();
  const { raw } = new X509Certificate(certificatePem);
  assert.deepEqual(rootDigest(certificatePem), new Uint8Array(createHash('sha256').update(raw).digest()));
  assert.deepEqual(
    rootDigest(`a comment\n${certificatePem.replaceAll('\n', '\r\n')}`),
    rootDigest(certificatePem),
  );
});

test('a bundle is split into its certificates', async () => {
  const [one, two] = await Promise.all([aRoot(), aRoot()]);
  const bundle = `first\n${one.certificatePem}\nsecond\n${two.certificatePem}`;
  assert.deepEqual(splitPem(bundle), [one.certificatePem, two.certificatePem]);
  assert.deepEqual(splitPem('nothing'), []);
});

test('a certificate of one of the roots is believed while both are valid', async () => {
  const [root, other] = await Promise.all([aRoot(NOW_MS), aRoot(NOW_MS)]);
  const leaf = await aLeaf(root, {}, AT_NOW);
  const roots = other.certificatePem + root.certificatePem;
  for (const nowMs of [NOW_MS, NOW_MS - BACKDATED_MS, NOW_MS + DAY_MS])
    verifyChain(leaf.certificatePem, roots, nowMs);
  const refused = (nowMs: number, message: RegExp) =>
    assert.throws(() => verifyChain(leaf.certificatePem, roots, nowMs), {
      code: 'permission-denied',
      message,
    });
  refused(NOW_MS - BACKDATED_MS - 1000, /CN=node1 is valid only from Dec 31 23:00:00 2029 GMT/);
  refused(NOW_MS + DAY_MS + 1000, /CN=node1 has expired at Jan {2}2/);
});

test('a certificate is not believed of a foreign root, of an expired root, and when it is a root itself', async () => {
  const [root, other] = await Promise.all([aRoot(NOW_MS), aRoot(NOW_MS)]);
  const { certificatePem } = await aLeaf(root, {}, AT_NOW);
  assert.throws(
    () => verifyChain(certificatePem, other.certificatePem, NOW_MS),
    /not of an authority of this/,
  );
  assert.throws(() => verifyChain(root.certificatePem, root.certificatePem, NOW_MS), /not of a node/);
  assert.throws(() => verifyChain(certificatePem, '', NOW_MS), /roots: there is no certificate/);
  const lapsed = await aRoot(NOW_MS, HOUR_MS);
  const leaf = await aLeaf(lapsed, {}, AT_NOW);
  assert.throws(
    () => verifyChain(leaf.certificatePem, lapsed.certificatePem, NOW_MS + 2 * HOUR_MS),
    /has expired/,
  );
});

test('a node cannot issue: what its certificate signed is not believed', async () => {
  const root = await aRoot(NOW_MS);
  const leaf = await aLeaf(root, {}, AT_NOW);
  const csr = await x509Tool.createKeyAndRequest({ nodeId: 'evil' });
  const args = ['x509', '-req', '-in', 'r.pem', '-CA', 'ca.pem', '-CAkey', 'k.pem', '-days', '3650'];
  const files = { 'r.pem': csr.requestPem, 'ca.pem': leaf.certificatePem, 'k.pem': leaf.keyPem };
  const forged = openssl(args, files);
  const nowMs = describeCertificate(forged).notBeforeMs;
  const chain = forged + leaf.certificatePem;
  assert.throws(() => verifyChain(chain, root.certificatePem, nowMs), /not of an authority of this cluster/);
});

test('through the cross-signed root a certificate of the new root chains to the old one, as to the new', async () => {
  const [oldRoot, newRoot, third] = await Promise.all([aRoot(NOW_MS), aRoot(NOW_MS), aRoot(NOW_MS)]);
  const cross = await x509Tool.crossSign({ newRootPem: newRoot.certificatePem, oldRoot, nowMs: NOW_MS });
  const { certificatePem } = await aLeaf(newRoot, {}, AT_NOW);
  verifyChain(certificatePem + cross, oldRoot.certificatePem, NOW_MS);
  verifyChain(certificatePem + cross, newRoot.certificatePem, NOW_MS);
  assert.throws(() => verifyChain(certificatePem, oldRoot.certificatePem, NOW_MS), /not of an authority/);
  assert.throws(
    () => verifyChain(certificatePem + cross, third.certificatePem, NOW_MS),
    /not of an authority/,
  );
});

test('a chain that turns in a circle comes to an end', async () => {
  const [a, b, c] = await Promise.all([aRoot(NOW_MS), aRoot(NOW_MS), aRoot(NOW_MS)]);
  const byB = await x509Tool.crossSign({ newRootPem: a.certificatePem, oldRoot: b, nowMs: NOW_MS });
  const byA = await x509Tool.crossSign({ newRootPem: b.certificatePem, oldRoot: a, nowMs: NOW_MS });
  const { certificatePem } = await aLeaf(a, {}, AT_NOW);
  assert.throws(
    () => verifyChain(certificatePem + byB + byA, c.certificatePem, NOW_MS),
    /a chain of more than 4 certificates/,
  );
});

test('the issuer is the root that signed, although all roots have the same name', async () => {
  const [one, two, three] = await Promise.all([aRoot(), aRoot(), aRoot()]);
  const { certificatePem } = await aLeaf(two);
  const digest = issuerDigest(certificatePem, one.certificatePem + two.certificatePem);
  assert.deepEqual(digest, rootDigest(two.certificatePem));
  assert.equal(issuerDigest(certificatePem, one.certificatePem + three.certificatePem), undefined);
});

test('a root is one valid certificate of an authority that signed itself', async () => {
  const root = await aRoot(NOW_MS, DAY_MS);
  const leaf = await aLeaf(root, {}, AT_NOW);
  requireRoot(root, NOW_MS);
  requireRoot({ certificatePem: foreignRoot('/CN=ours') }, Date.now());
  const refused = (certificatePem: string, nowMs: number, message: RegExp) =>
    assert.throws(() => requireRoot({ certificatePem }, nowMs), { code: 'invalid-argument', message });
  refused(root.certificatePem, NOW_MS - 2 * HOUR_MS, /valid only from/);
  refused(root.certificatePem, NOW_MS + 2 * DAY_MS, /has expired/);
  refused(root.certificatePem + root.certificatePem, NOW_MS, /it has 2 certificates, not one/);
  refused(leaf.certificatePem, NOW_MS, /may not sign certificates/);
  refused('', NOW_MS, /there is no certificate/);
  const [oldRoot, newRoot] = await Promise.all([aRoot(NOW_MS), aRoot(NOW_MS)]);
  const cross = await x509Tool.crossSign({ newRootPem: newRoot.certificatePem, oldRoot, nowMs: NOW_MS });
  refused(cross, NOW_MS, /not signed by itself/);
  assert.throws(
    () => requireRoot({ ...oldRoot, keyPem: newRoot.keyPem }, NOW_MS),
    /root key: it does not belong/,
  );
});

test('a certificate is renewed between half and four fifths of its life, wherever chance falls', () => {
  const lives = fc.integer({ min: HOUR_MS, max: 1_000 * DAY_MS });
  fc.assert(
    fc.property(lives, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (lifeMs, chance) => {
      const times = { notBeforeMs: NOW_MS - BACKDATED_MS, notAfterMs: NOW_MS + lifeMs };
      const part = (renewalAt({ ...times, random: () => chance }) - NOW_MS) / lifeMs;
      assert.ok(part >= 0.5 - 1e-6 && part <= 0.8 + 1e-6, `${part}`);
    }),
  );
  const times = { notBeforeMs: NOW_MS - BACKDATED_MS, notAfterMs: NOW_MS + 10 * HOUR_MS };
  assert.equal(renewalAt({ ...times, random: () => 0 }), NOW_MS + 5 * HOUR_MS);
  const cut = { notBeforeMs: NOW_MS - BACKDATED_MS, notAfterMs: NOW_MS - 1 };
  assert.equal(renewalAt({ ...cut, random: () => 0 }), NOW_MS - 1, 'with no life left: at once');
});
