// Who calls, and whether it may. A manager passes calls on to the leader and says for whom; only managers are believed
// that.

import { SwarmError } from '../core/errors.ts';
import type { CallerRole, Method } from '../proto/wire.ts';

export interface Caller {
  readonly role: CallerRole;
  /** Of its certificate, or of this machine; empty when it has shown none. */
  readonly nodeId: string;
  /** From when the certificate is valid that it has shown; undefined when another one speaks for it. */
  readonly validFromMs?: number;
  /** Of the operating system, on the machine of the socket that was called. Asking for it takes time and memory. */
  readonly userId?: number | undefined;
  /**
   * PEM of a certificate that is right in all but its time, and of what was shown with it: who shows it is `anyone`, and may
   * ask for a new one.
   */
  readonly expiredCertificate?: Buffer;
}

/** The keys under which a manager says for whom it asks. */
export const FORWARDED_ROLE_KEY = 'tsswarm-caller-role';
export const FORWARDED_NODE_KEY = 'tsswarm-caller-node';
export const FORWARDED_CERTIFICATE_KEY = 'tsswarm-caller-expired-bin';

const FORWARDED_USER_KEY = 'tsswarm-caller-user';

const FORWARDED_ROLES: Readonly<Record<string, CallerRole>> = {
  anyone: 'anyone',
  worker: 'worker',
  manager: 'manager',
};

const NOBODY: Caller = { role: 'anyone', nodeId: '' };

/** For whom a manager asks; undefined when it asks for itself. */
export function forwardedCaller(metadata: (key: string) => string | Buffer | undefined): Caller | undefined {
  const given = metadata(FORWARDED_ROLE_KEY);
  if (given === undefined) return undefined;
  const role = FORWARDED_ROLES[String(given)];
  if (role === undefined) return NOBODY;
  const expired = metadata(FORWARDED_CERTIFICATE_KEY);
  const nodeId = String(metadata(FORWARDED_NODE_KEY) ?? '');
  const user = metadata(FORWARDED_USER_KEY);
  return {
    role,
    nodeId,
    ...(user !== undefined && { userId: Number(user) }),
    ...(Buffer.isBuffer(expired) && { expiredCertificate: expired }),
  };
}

/** The same for a call that is written down, with the user. */
export function auditedMetadata(caller: Caller): Record<string, string | Buffer> {
  const { userId } = caller;
  return {
    ...forwardingMetadata(caller),
    ...(userId !== undefined && { [FORWARDED_USER_KEY]: String(userId) }),
  };
}

/** What a manager says to the leader of who has called it. Whoever is at its own sockets acts as that manager. */
export function forwardingMetadata({
  role,
  nodeId,
  expiredCertificate,
}: Caller): Record<string, string | Buffer> {
  return {
    [FORWARDED_ROLE_KEY]: role === 'local' ? 'manager' : role,
    [FORWARDED_NODE_KEY]: nodeId,
    ...(expiredCertificate && { [FORWARDED_CERTIFICATE_KEY]: expiredCertificate }),
  };
}

/**
 * Who is behind a call: what was shown, as `identify` has it for now, or whom a manager passes it on for. Throws
 * `permission-denied` when the method is not for that one.
 */
export function admit(
  method: Pick<Method<unknown, unknown>, 'path' | 'callers'>,
  shown: Caller,
  identify: (caller: Caller) => Caller,
  metadata: Parameters<typeof forwardedCaller>[0],
): { readonly caller: Caller; readonly isForwarded: boolean } {
  const direct = shown.role === 'local' ? shown : identify(shown);
  const forwarded = direct.role === 'local' ? undefined : forwardedCaller(metadata);
  // Taken for its own, a call of another node would be answered with what is meant for the one that passed it on.
  if (forwarded !== undefined && direct.role !== 'manager')
    throw new SwarmError('unavailable', `node ${direct.nodeId}, which passed the call on, is no manager`, {
      isUndone: true,
    });
  const caller = forwarded === undefined ? direct : identify(forwarded);
  requireAllowed(method, caller);
  return { caller, isForwarded: forwarded !== undefined };
}

/** Throws `permission-denied` when the method does not name the caller's role. */
export function requireAllowed(
  { path, callers }: Pick<Method<unknown, unknown>, 'path' | 'callers'>,
  { role, nodeId }: Caller,
): void {
  if (callers.includes('anyone') || callers.includes(role)) return;
  const who = role === 'anyone' ? 'a caller without a valid certificate' : `the ${role} ${nodeId}`;
  throw new SwarmError('permission-denied', `${path.slice(path.lastIndexOf('/') + 1)}: not for ${who}`, {
    hint:
      role === 'anyone'
        ? 'A node gets its certificate when it joins the cluster with a token.'
        : `It may be called by: ${callers.join(', ')}.`,
  });
}
