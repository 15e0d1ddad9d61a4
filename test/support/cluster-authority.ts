// A cluster's root and certificates of its nodes, made as the cluster makes them; and openssl's word on them.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { CertificateSubject, Root } from '../../manager/ca/certificate-tool.ts';
import { x509Tool } from '../../manager/ca/x509.ts';

export const HOUR_MS = 3_600_000;

export interface Leaf {
  readonly certificatePem: string;
  readonly keyPem: string;
}

export const aSubject = (change: Partial<CertificateSubject> = {}): CertificateSubject => ({
  nodeId: 'node1',
  role: 'worker',
  clusterId: 'cluster1',
  ...change,
});

export function aRoot(nowMs = Date.now(), lifeMs = 1_000 * HOUR_MS): Promise<Root> {
  return x509Tool.createRoot({ clusterId: 'cluster1', nowMs, lifeMs });
}

/** A node's certificate of this root, for an hour from `nowMs` unless told. */
export async function aLeaf(
  root: Root,
  change: Partial<CertificateSubject> = {},
  { nowMs = Date.now(), lifeMs = HOUR_MS }: { nowMs?: number; lifeMs?: number } = {},
): Promise<Leaf> {
  const { keyPem, requestPem } = await x509Tool.createKeyAndRequest();
  const subject = aSubject(change);
  return { keyPem, certificatePem: await x509Tool.issue({ requestPem, root, subject, nowMs, lifeMs }) };
}

/** What openssl prints; each of `files` is written beside it under its name. Throws what it says when it refuses. */
export function openssl(args: readonly string[], files: Readonly<Record<string, string>> = {}): string {
  const cwd = mkdtempSync(path.join(tmpdir(), 'tsw-openssl-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(path.join(cwd, name), content);
    return execFileSync('openssl', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } finally {
    rmSync(cwd, { recursive: true });
  }
}
