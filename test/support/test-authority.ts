// Certificates for tests and benchmarks of several managers: an authority, and identities whose common name is a node.

import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { TlsIdentity } from '../../rpc/tls.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
/** The cluster that all these nodes are of. */
export const TEST_CLUSTER = 'cluster';

const LIFE_MS = 24 * 3_600_000;

/** Identities of nodes that believe each other; those who look at addresses find these in the certificates. */
export async function newIdentities(
  nodeIds: readonly string[],
  addresses: readonly string[] = [],
): Promise<Map<string, TlsIdentity>> {
  x509.cryptoProvider.set(webcrypto as never);
  const notBefore = new Date(Date.now() - 60_000);
  const notAfter = new Date(Date.now() + LIFE_MS);
  const keys = await newKeys();
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=test authority',
    keys,
    notBefore,
    notAfter,
    signingAlgorithm: ALGORITHM,
    extensions: [new x509.BasicConstraintsExtension(true)],
  });
  const identities = new Map<string, TlsIdentity>();
  for (const nodeId of nodeIds) {
    const own = await newKeys();
    const certificate = await x509.X509CertificateGenerator.create({
      subject: `CN=${nodeId}, OU=swarm-manager, O=${TEST_CLUSTER}`,
      issuer: authority.subject,
      publicKey: own.publicKey,
      signingKey: keys.privateKey,
      notBefore,
      notAfter,
      signingAlgorithm: ALGORITHM,
      extensions: addresses.map((value) => new x509.SubjectAlternativeNameExtension([{ type: 'ip', value }])),
    });
    const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', own.privateKey)).toString('base64');
    identities.set(nodeId, {
      certificate: certificate.toString('pem'),
      key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`,
      roots: authority.toString('pem'),
    });
  }
  return identities;
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, [
    'sign',
    'verify',
  ]) as Promise<webcrypto.CryptoKeyPair>;
}
