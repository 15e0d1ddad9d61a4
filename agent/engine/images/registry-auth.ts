// What a registry asks for before it answers: the challenge of a 401 and the credentials that meet it. Pure.

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

/** The token server's address with the challenge's parameters. Throws on a realm that is no URL. */
export function tokenUrl(challenge: Extract<Challenge, { scheme: 'bearer' }>, scope: string): URL {
  const url = new URL(challenge.realm);
  if (challenge.service !== undefined) url.searchParams.set('service', challenge.service);
  url.searchParams.set('scope', challenge.scope ?? scope);
  return url;
}

export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** True for localhost and loopback addresses, with or without a port. */
export function isLoopback(registry: string): boolean {
  const host = registry.replace(/:\d+$/, '');
  return host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
