// How a machine gets its first certificate: it fetches the roots from a manager it does not know yet, believes them when
// the join token says so, and asks again over a connection that only such a manager can answer.

import { SwarmError, toSwarmError } from '../core/errors.ts';
import { parseJoinToken } from '../core/join-token.ts';
import type { CertificateTool } from '../manager/ca/certificate-tool.ts';
import type { IssueCertificateRequest } from '../proto/generated/membership.ts';
import { NodeCaService } from '../proto/generated/membership.ts';
import { describeCertificate, rootDigest, splitPem, verifyChain } from '../rpc/certificates.ts';
import { createClient, openTlsChannel, withChannel } from '../rpc/client.ts';
import { anonymousCredentials, type TlsIdentity, unverifiedCredentials } from '../rpc/tls.ts';

export interface Joining {
  readonly token: string;
  /** host:port; one that answers is enough. */
  readonly managers: readonly string[];
  readonly request: Omit<IssueCertificateRequest, 'request' | 'token'>;
}

export interface Joined {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly identity: TlsIdentity;
}

const CALL_LIMIT_MS = 10_000;

/** Throws what stands in the way: the token, the addresses, or a manager that is not of the token's cluster. */
export async function joinCluster(
  tool: CertificateTool,
  { token, managers, request }: Joining,
): Promise<Joined> {
  const pinned = parseJoinToken(token).rootDigest;
  const { keyPem, requestPem } = await tool.createKeyAndRequest();
  let failure = new SwarmError('invalid-argument', 'HOST:PORT of a manager is missing');
  for (const manager of managers) {
    try {
      const root = await fetchRoot(manager, pinned);
      const answer = await withChannel(openTlsChannel(manager, anonymousCredentials(root)), (channel) =>
        createClient(NodeCaService, channel).issueCertificate(
          { ...request, token, request: requestPem },
          { timeoutMs: CALL_LIMIT_MS },
        ),
      );
      verifyChain(answer.certificate, answer.roots, Date.now());
      const { clusterId } = describeCertificate(answer.certificate);
      const identity = { certificate: answer.certificate, key: keyPem, roots: answer.roots };
      return { nodeId: answer.nodeId, clusterId, identity };
    } catch (error) {
      failure = about(manager, error);
      // Another manager would say the same.
      if (failure.code !== 'unavailable' && failure.code !== 'deadline-exceeded') throw failure;
    }
  }
  throw failure;
}

/** The root that the token names, in PEM. Whoever answers may be anybody; the digest is the proof. */
async function fetchRoot(manager: string, pinned: Uint8Array): Promise<string> {
  const { certificates } = await withChannel(openTlsChannel(manager, unverifiedCredentials()), (channel) =>
    createClient(NodeCaService, channel).getRoots({}, { timeoutMs: CALL_LIMIT_MS }),
  );
  const root = splitPem(certificates).find((pem) => Buffer.compare(rootDigest(pem), pinned) === 0);
  if (root === undefined)
    throw new SwarmError('permission-denied', 'token: the manager that answers is of another cluster', {
      hint: 'Take token and address from the same cluster: tsswarm join-token worker|manager.',
    });
  return root;
}

function about(manager: string, error: unknown): SwarmError {
  const { code, message, hint } = toSwarmError(error);
  if (code !== 'unavailable' && code !== 'deadline-exceeded') return toSwarmError(error);
  return new SwarmError(code, `the manager at ${manager} cannot be reached: ${message}`, {
    hint:
      hint ?? 'See that it runs, that this is its advertised address, and that the firewall lets TCP pass.',
    cause: error,
  });
}
