// How operators name an authority outside the cluster: "protocol=cfssl,url=https://ca:8888/api/v1/cfssl/sign,cacert=FILE".

import { invalidField } from './errors.ts';

export interface ExternalCaFlag {
  /** The only one there is. */
  readonly protocol: 'cfssl';
  readonly url: string;
  /** A file in PEM; undefined when the flag names none. */
  readonly caCertFile: string | undefined;
  /** Everything else, for the authority: cfssl knows "profile" and "label". */
  readonly options: Readonly<Record<string, string>>;
}

const FIELD = 'external-ca';

/** Reads the value of `--external-ca`; no value in it can hold a comma. Throws `invalid-argument` that names the field. */
export function parseExternalCa(text: string): ExternalCaFlag {
  const values = new Map<string, string>();
  for (const part of text.split(',')) {
    const equals = part.indexOf('=');
    const key = part.slice(0, Math.max(equals, 0)).trim().toLowerCase();
    if (key === '') throw invalidField(FIELD, `"${part}" is no KEY=VALUE`);
    if (values.has(key)) throw invalidField(FIELD, `${key} is there twice`);
    values.set(key, part.slice(equals + 1).trim());
  }
  const { protocol, url, cacert, ...options } = Object.fromEntries(values);
  if (protocol === undefined) throw invalidField(`${FIELD} protocol`, 'is missing: protocol=cfssl');
  if (protocol.toLowerCase() !== 'cfssl')
    throw invalidField(`${FIELD} protocol`, `"${protocol}" is not known, only cfssl is`);
  if (url === undefined) throw invalidField(`${FIELD} url`, 'is missing: url=https://HOST/api/v1/cfssl/sign');
  requireUrl(url);
  if (cacert === '') throw invalidField(`${FIELD} cacert`, 'names no file');
  return { protocol: 'cfssl', url, caCertFile: cacert, options };
}

function requireUrl(url: string): void {
  const scheme = URL.canParse(url) ? new URL(url).protocol : '';
  if (scheme !== 'https:' && scheme !== 'http:')
    throw invalidField(`${FIELD} url`, `"${url}" is no address that begins with https:// or http://`);
}
