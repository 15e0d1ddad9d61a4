// What a registry asks for before it answers: the challenge of a 401 and the credentials that meet it. Pure.

import { SwarmError } from '../../../core/errors.ts';

export type Challenge =
  | { readonly scheme: 'basic' }
  | {
      readonly scheme: 'bearer';
      readonly realm: string;
      readonly service: string | undefined;
      readonly scope: string | undefined;
    };

/** Reads WWW-Authenticate; undefined when it asks for something else. Bearer is preferred. */
export function parseChallenge(header: string): Challenge | undefined {
  const bearer = /(?:^|,\s*)Bearer\s+(.*)$/i.exec(header)?.[1];
  if (bearer !== undefined) {
    const parameters = new Map<string, string>();
    for (const [, key, quoted, plain] of bearer.matchAll(/([a-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/gi))
      parameters.set((key as string).toLowerCase(), quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '');
    const realm = parameters.get('realm');
    if (realm === undefined) return undefined;
    return { scheme: 'bearer', realm, service: parameters.get('service'), scope: parameters.get('scope') };
  }
  return /(?:^|,\s*)Basic(?:\s|$)/i.test(header) ? { scheme: 'basic' } : undefined;
}

/** The token server's address with the challenge's parameters. Throws `failed-precondition` on a realm that is no URL. */
export function tokenUrl(challenge: Extract<Challenge, { scheme: 'bearer' }>, scope: string): URL {
  if (!URL.canParse(challenge.realm))
    throw new SwarmError('failed-precondition', 'the registry names no address for its tokens');
  const url = new URL(challenge.realm);
  if (challenge.service !== undefined) url.searchParams.set('service', challenge.service);
  const wanted = challenge.scope ?? scope;
  if (wanted !== '') url.searchParams.set('scope', wanted);
  return url;
}

export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
