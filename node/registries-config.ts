// "registries" in the configuration file: mirrors, registries without TLS, and authorities. Every refusal names the entry.

import { readFileSync } from 'node:fs';
import { isInsecureHost, type RegistrySettings } from '../agent/engine/images/registry-settings.ts';
import { invalidField, messageOf } from '../core/errors.ts';
import { parseImageReference } from '../core/image-reference.ts';

export interface RegistriesConfig {
  /** Registry → URLs. */
  readonly mirrors: Readonly<Record<string, readonly string[]>>;
  readonly insecure: readonly string[];
  /** host[:port] → file with PEM. */
  readonly certificates: Readonly<Record<string, string>>;
}

export const noRegistries: RegistriesConfig = { mirrors: {}, insecure: [], certificates: {} };

const KEYS = ['mirrors', 'insecure', 'certificates'];

/** Throws `invalid-argument`. `field` says where it stands. */
export function parseRegistries(value: unknown, field: string): RegistriesConfig {
  const said = asMap(value, field);
  for (const key of Object.keys(said))
    if (!KEYS.includes(key)) throw invalidField(`${field}.${key}`, `unknown; known are ${KEYS.join(', ')}`);
  const insecure = asTexts(said['insecure'] ?? [], `${field}.insecure`);
  for (const host of insecure) requireRegistry(host, `${field}.insecure`);
  const mirrors = Object.entries(asMap(said['mirrors'] ?? {}, `${field}.mirrors`)).map(([registry, urls]) => {
    const where = `${field}.mirrors.${registry}`;
    requireRegistry(registry, where);
    return [registry, asTexts(urls, where).map((url) => requireMirror(url, where, insecure))] as const;
  });
  const certificates = Object.entries(asMap(said['certificates'] ?? {}, `${field}.certificates`)).map(
    ([host, file]) => {
      const where = `${field}.certificates.${host}`;
      requireRegistry(host, where);
      if (typeof file !== 'string' || !file.startsWith('/'))
        throw invalidField(where, 'must be the absolute path of a file with certificates, PEM');
      return [host, file] as const;
    },
  );
  return {
    mirrors: Object.fromEntries(mirrors),
    insecure,
    certificates: Object.fromEntries(certificates),
  };
}

/** For the engine; reads the files. `insecure` are those that the older option names. */
export function registrySettings(config: RegistriesConfig, insecure: readonly string[]): RegistrySettings {
  const authorities = Object.entries(config.certificates).map(([host, file]) => {
    const where = `registries.certificates.${host}`;
    const pem = readPem(file, where);
    if (!pem.includes('-----BEGIN CERTIFICATE-----'))
      throw invalidField(where, `${file} has no certificate in PEM`);
    return [host, pem] as const;
  });
  return {
    mirrors: config.mirrors,
    insecure: [...config.insecure, ...insecure],
    authorities: Object.fromEntries(authorities),
  };
}

function readPem(file: string, where: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw invalidField(where, messageOf(error));
  }
}

function asMap(value: unknown, field: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalidField(field, 'must hold "name: value" lines');
  return value as Readonly<Record<string, unknown>>;
}

function asTexts(value: unknown, field: string): string[] {
  const list = Array.isArray(value) ? value : [value];
  if (!list.every((item) => typeof item === 'string')) throw invalidField(field, 'must be a list of names');
  return list;
}

/** As image names have it: host[:port]. */
function requireRegistry(name: string, field: string): void {
  try {
    if (parseImageReference(`${name}/name`).registry === name) return;
  } catch (error) {
    throw invalidField(field, messageOf(error));
  }
  throw invalidField(field, `"${name}" must be HOST or HOST:PORT, as in the names of images`);
}

function requireMirror(text: string, field: string, insecure: readonly string[]): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.username !== '')
    throw invalidField(field, `"${text}" must be https://HOST[:PORT][/PATH]`);
  if (url.protocol === 'http:' && !isInsecureHost({ mirrors: {}, insecure, authorities: {} }, url.host))
    throw invalidField(field, `"${text}" is plain HTTP: use https, or list ${url.host} under "insecure"`);
  return text.replace(/\/+$/, '');
}
