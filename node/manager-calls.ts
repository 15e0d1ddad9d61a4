// What a node asks of managers on its own behalf.

import { hasCode } from '../core/errors.ts';
import type { CertificateTool } from '../manager/ca/certificate-tool.ts';
import { emptyIssueCertificateRequest, NodeCaService } from '../proto/generated/membership.ts';
import { type Channel, createClient, withChannel } from '../rpc/client.ts';
import type { TlsIdentity } from '../rpc/tls.ts';

/** A certificate that takes longer is asked for again. */
export const CALL_LIMIT_MS = 10_000;

/** A new certificate for a new key. */
export async function requestCertificate(
  tool: Pick<CertificateTool, 'createKeyAndRequest'>,
  channel: Channel,
): Promise<TlsIdentity> {
  const { keyPem, requestPem } = await tool.createKeyAndRequest();
  const { certificate, roots } = await createClient(NodeCaService, channel).issueCertificate(
    { ...emptyIssueCertificateRequest, request: requestPem },
    { timeoutMs: CALL_LIMIT_MS },
  );
  return { certificate, key: keyPem, roots };
}

export interface Managers {
  /** How many there are to ask. */
  readonly count: number;
  /** A connection to another one with each call. */
  readonly next: () => Channel;
}

/** Over the first connection, and when nobody answers there, of one manager after the other. */
export async function askManagers<T>(
  first: Channel,
  { count, next }: Managers,
  use: (channel: Channel) => Promise<T>,
): Promise<T> {
  let channel = first;
  for (let left = count; ; left--) {
    try {
      return await withChannel(channel, use);
    } catch (error) {
      if (left === 0 || !hasCode(error, 'unavailable')) throw error;
      channel = next();
    }
  }
}
