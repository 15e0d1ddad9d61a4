// An authority outside the cluster that signs the nodes' certificates: CFSSL's protocol, POST of a request, its subject and
// names. It keeps the key; what it issues is believed only when it is what was asked for.

import { createPublicKey, X509Certificate } from 'node:crypto';
import { request as requestPlain } from 'node:http';
import { request as requestSecure } from 'node:https';
import type { Clock } from '../../core/clock.ts';
import { type ErrorCode, messageOf, SwarmError } from '../../core/errors.ts';
import { BACKDATED_MS, describeCertificate, unitOf, verifyChain } from '../../rpc/certificates.ts';
import type { CertificateSubject } from './certificate-tool.ts';

/** Swarm's patience; it asks the next authority then, and again later. */
const ANSWER_LIMIT_MS = 5_000;
// A certificate has less than two thousand.
const ANSWER_BYTES_MAX = 1 << 20;
const SERVER_USAGE = '1.3.6.1.5.5.7.3.1';
const CLIENT_USAGE = '1.3.6.1.5.5.7.3.2';

export interface ExternalCa {
  /** The whole address of the call, as https://ca:8888/api/v1/cfssl/sign. */
  readonly url: string;
  /** Who the server's certificate has to be of, in PEM; when empty, the cluster's roots. */
  readonly caCertPem: string;
  /** Further fields of the request: "profile", "label". */
  readonly options: Readonly<Record<string, string>>;
}

export interface ExternalRequest {
  readonly requestPem: string;
  readonly subject: CertificateSubject;
  /** The most that the certificate may last. */
  readonly lifeMs: number;
  /** The cluster's roots, in PEM: the certificate has to chain to one of them. */
  readonly rootsPem: string;
  /** Shown to servers that ask for a certificate. */
  readonly identity?: { readonly certificatePem: string; readonly keyPem: string };
}

/**
 * A certificate in PEM from the first of these authorities that gives one as asked. When none does, throws the last one's
 * error: `unavailable` or `deadline-exceeded` without an answer, `failed-precondition` when it refuses or its answer is
 * not what was asked for.
 */
export async function issueExternally(
  authorities: readonly ExternalCa[],
  asked: ExternalRequest,
  clock: Clock,
): Promise<string> {
  let last = new SwarmError('failed-precondition', 'there is no external authority to ask');
  for (const authority of authorities) {
    try {
      const certificatePem = certificateIn(authority, await post(authority, asked, clock));
      requireAsAsked(authority, certificatePem, asked, clock.nowMs());
      return certificatePem;
    } catch (error) {
      if (!(error instanceof SwarmError)) throw error;
      last = error;
    }
  }
  throw last;
}

interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

function post(authority: ExternalCa, asked: ExternalRequest, clock: Clock): Promise<HttpAnswer> {
  const { url, caCertPem } = authority;
  const { rootsPem, identity } = asked;
  const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
  const isSecure = new URL(url).protocol === 'https:';
  const call = (isSecure ? requestSecure : requestPlain)(url, {
    method: 'POST',
    agent: false,
    headers: { 'content-type': 'application/json' },
    ...(isSecure && { ca: caCertPem === '' ? rootsPem : caCertPem }),
    ...(isSecure && identity && { cert: identity.certificatePem, key: identity.keyPem }),
  });
  const cancelLimit = clock.after(ANSWER_LIMIT_MS, () => {
    const problem = `has not answered within ${ANSWER_LIMIT_MS / 1000} seconds`;
    reject(errorOf(authority, 'deadline-exceeded', problem));
    call.destroy();
  });
  const fail = (error: Error) =>
    reject(errorOf(authority, 'unavailable', `cannot be asked: ${messageOf(error)}`, { cause: error }));
  call.on('error', fail);
  call.on('response', (response) => {
    let body = '';
    response.setEncoding('utf8');
    response.on('data', (chunk: string) => {
      body += chunk;
      if (body.length > ANSWER_BYTES_MAX) response.destroy(new Error('its answer has no end'));
    });
    response.on('error', fail);
    response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
  });
  call.end(JSON.stringify(bodyOf(authority, asked)));
  return promise.finally(cancelLimit);
}

function bodyOf(
  { options }: ExternalCa,
  { requestPem, subject: { nodeId, role, clusterId } }: ExternalRequest,
) {
  const unit = unitOf(role);
  return {
    ...options,
    certificate_request: requestPem,
    subject: { CN: nodeId, names: [{ O: clusterId, OU: unit }] },
    hosts: [nodeId, unit],
  };
}

/** As CFSSL's API answers. */
interface CfsslAnswer {
  readonly success?: boolean;
  readonly result?: { readonly certificate?: unknown } | null;
  readonly errors?: readonly { readonly code?: number; readonly message?: string }[];
}

function certificateIn(authority: ExternalCa, { status, body }: HttpAnswer): string {
  const answer = parseAnswer(body);
  if (answer === undefined)
    throw errorOf(
      authority,
      status >= 500 ? 'unavailable' : 'failed-precondition',
      `answers ${status}, and no JSON`,
      {
        hint: 'The address has to be that of the sign call: https://HOST/api/v1/cfssl/sign.',
      },
    );
  const certificate = answer.result?.certificate;
  if (answer.success === true && typeof certificate === 'string') return certificate;
  const reasons = (answer.errors ?? []).map(({ code, message }) => `${message ?? 'no reason'} (${code})`);
  throw errorOf(authority, 'failed-precondition', `refuses: ${reasons.join('; ') || `status ${status}`}`);
}

function parseAnswer(body: string): CfsslAnswer | undefined {
  try {
    const answer: unknown = JSON.parse(body);
    return typeof answer === 'object' && answer !== null ? answer : undefined;
  } catch {
    // The caller says so, with what the server said instead.
    return undefined;
  }
}

function requireAsAsked(
  authority: ExternalCa,
  certificatePem: string,
  { requestPem, subject, lifeMs, rootsPem }: ExternalRequest,
  nowMs: number,
): void {
  const wrong = (problem: string, hint?: string) =>
    errorOf(
      authority,
      'failed-precondition',
      `has issued a certificate that ${problem}`,
      hint === undefined ? {} : { hint },
    );
  try {
    verifyChain(certificatePem, rootsPem, nowMs);
  } catch (error) {
    throw wrong(`is not believed: ${messageOf(error)}`, "It has to sign with the key of the cluster's root.");
  }
  const issued = describeCertificate(certificatePem);
  for (const field of ['nodeId', 'role', 'clusterId'] as const)
    if (issued[field] !== subject[field])
      throw wrong(
        `has ${field} "${issued[field] ?? ''}", not "${subject[field]}"`,
        'Its profile must not fix the subject (CN, OU, O).',
      );
  const key = Buffer.from(issued.publicKey);
  // A request carries its key as the certificate does. Whether the authority is honest is not the question: it can issue
  // for any key.
  if (!derOf(requestPem).includes(key)) throw wrong('is for another key than that of the request');
  if (createPublicKey({ key, format: 'der', type: 'spki' }).asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw wrong('is for a key that is not ECDSA P-256');
  const usages = new X509Certificate(certificatePem).keyUsage ?? [];
  if (![SERVER_USAGE, CLIENT_USAGE].every((usage) => usages.includes(usage)))
    throw wrong(
      'is not for clients and servers',
      'Its profile needs the usages "server auth" and "client auth".',
    );
  // Authorities back-date as well, each by its own measure.
  if (issued.notAfterMs - issued.notBeforeMs > lifeMs + BACKDATED_MS)
    throw wrong(
      `lasts ${hours(issued.notAfterMs - issued.notBeforeMs)}; ${hours(lifeMs)} are asked for`,
      'Lower the expiry of its profile, or raise --cert-expiry.',
    );
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]*-----/g, ''), 'base64');
}

function hours(ms: number): string {
  return `${Math.round(ms / 3_600_000)} hours`;
}

function errorOf(
  { url }: ExternalCa,
  code: ErrorCode,
  problem: string,
  detail: { readonly hint?: string; readonly cause?: unknown } = {},
): SwarmError {
  // Without the name and password that an address may have.
  const { origin, pathname } = new URL(url);
  return new SwarmError(code, `the external authority ${origin}${pathname} ${problem}`, detail);
}
