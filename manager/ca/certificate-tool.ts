// Who makes keys, requests and certificates. The one who does (x509.ts) keeps 8 MB of memory; daemons reach it in
// a process that ends after its use (node/certificate-process.ts).

import type { NodeRole } from '../../core/generated/objects.ts';

/** An authority: its certificate, and the key that signs. */
export interface Root {
  readonly certificatePem: string;
  /** PKCS#8. */
  readonly keyPem: string;
}

/** For whom a certificate is issued: all that it says, whatever the request does. */
export interface CertificateSubject {
  readonly nodeId: string;
  readonly role: NodeRole;
  readonly clusterId: string;
}

/** All reject with `invalid-argument` for input that cannot be used, naming the field. */
export interface CertificateTool {
  /** A new authority, valid from an hour before `nowMs`; for 20 years unless told. */
  createRoot(options: {
    readonly clusterId: string;
    readonly nowMs: number;
    readonly lifeMs?: number;
  }): Promise<Root>;
  /** A node's key (PKCS#8), and a request (PKCS#10) for a certificate of it. */
  createKeyAndRequest(options?: {
    readonly nodeId?: string;
  }): Promise<{ readonly keyPem: string; readonly requestPem: string }>;
  /** A certificate in PEM for the key of the request, valid from an hour before `nowMs` to `lifeMs` behind it, or to the root's end. */
  issue(options: {
    readonly requestPem: string;
    readonly root: Root;
    readonly subject: CertificateSubject;
    readonly nowMs: number;
    readonly lifeMs: number;
  }): Promise<string>;
  /**
   * The new root's name and key, signed by the old root, in PEM. Shown behind certificates of the new root, it makes nodes
   * believe them that know only the old one.
   */
  crossSign(options: {
    readonly newRootPem: string;
    readonly oldRoot: Root;
    readonly nowMs: number;
  }): Promise<string>;
}
