// The port that nodes call. TLS is ended here and not by the gRPC server, because certificates are renewed under open
// connections, because a machine without a certificate has to be able to ask for one, and because a node that is removed
// must lose its connections at once.

import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type DetailedPeerCertificate, type Server, type TLSSocket } from 'node:tls';
import { messageOf, SwarmError } from '../core/errors.ts';
import type { Caller } from './caller.ts';
import { secureContextOptions, subjectOf, type TlsIdentity } from './tls.ts';

export interface TlsListenerOptions {
  readonly identity: TlsIdentity;
  /** Certificates of other clusters count as none. */
  readonly clusterId: string;
  /** Takes over an established connection. */
  readonly onConnection: (socket: TLSSocket) => void;
}

const HANDSHAKE_LIMIT_MS = 10_000;
const HTTP2 = 'h2';
const NOBODY: Caller = { role: 'anyone', nodeId: '' };

export class TlsListener {
  readonly #server: Server;
  readonly #callers = new Map<string, { readonly caller: Caller; readonly socket: TLSSocket }>();

  private constructor({ identity, clusterId, onConnection }: TlsListenerOptions) {
    this.#server = createServer({
      ...secureContextOptions(identity),
      requestCert: true,
      // Who shows no certificate, or no good one, is `anyone`.
      rejectUnauthorized: false,
      // Of a list Node makes a copy for every connection, in a piece of its pool, 64 KB of which stay there with it.
      ALPNCallback: ({ protocols }) => protocols.find((protocol) => protocol === HTTP2),
      handshakeTimeout: HANDSHAKE_LIMIT_MS,
    });
    this.#server.on('secureConnection', (socket) => {
      const key = `${socket.remoteAddress}:${socket.remotePort}`;
      this.#callers.set(key, { caller: identify(socket, clusterId), socket });
      socket.once('close', () => this.#callers.delete(key));
      socket.setNoDelay(true);
      onConnection(socket);
    });
    // A handshake that fails is the caller's trouble; it sees why at its end.
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
  }

  /** Throws `unavailable` when the address cannot be had. */
  static async listen(
    options: TlsListenerOptions,
    { host, port }: { readonly host: string; readonly port: number },
  ): Promise<TlsListener> {
    const listener = new TlsListener(options);
    listener.#server.listen(port, host);
    try {
      await once(listener.#server, 'listening');
    } catch (error) {
      throw new SwarmError('unavailable', `cannot listen on ${host}:${port}: ${messageOf(error)}`, {
        cause: error,
      });
    }
    return listener;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** New connections see this one; those that are open go on. */
  setIdentity(identity: TlsIdentity): void {
    this.#server.setSecureContext(secureContextOptions(identity));
  }

  /** Who is at the other end, `peer` as the gRPC server writes it: address:port. */
  callerOf(peer: string): Caller {
    return this.#callers.get(peer)?.caller ?? NOBODY;
  }

  /** Ends the connections of a node that is no member any more. */
  disconnect(nodeId: string): void {
    for (const { caller, socket } of this.#callers.values()) if (caller.nodeId === nodeId) socket.destroy();
  }

  close(): void {
    this.#server.close();
    for (const { socket } of this.#callers.values()) socket.destroy();
  }
}

function identify(socket: TLSSocket, clusterId: string): Caller {
  const certificate = socket.getPeerCertificate();
  if (certificate.raw === undefined) return NOBODY;
  const subject = subjectOf(certificate);
  if (subject.role === undefined || subject.clusterId !== clusterId) return NOBODY;
  const validFromMs = Date.parse(certificate.valid_from);
  if (socket.authorized) return { role: subject.role, nodeId: subject.nodeId, validFromMs };
  // The reason is the last of several: whoever acts on an expired certificate verifies the rest of it.
  if (String(socket.authorizationError) !== 'CERT_HAS_EXPIRED') return NOBODY;
  return { ...NOBODY, expiredCertificate: Buffer.from(chainOf(socket.getPeerCertificate(true))) };
}

/** PEM of what was shown, the owner's certificate first; an older root may be reached only through the others. */
function chainOf(shown: DetailedPeerCertificate): string {
  const chain = new Map<string, string>();
  for (
    let current: DetailedPeerCertificate | undefined = shown;
    current?.raw !== undefined && !chain.has(current.fingerprint256);
    current = current.issuerCertificate
  )
    chain.set(current.fingerprint256, new X509Certificate(current.raw).toString());
  return [...chain.values()].join('');
}
