// Values of the options of a container: hosts, limits, devices, security. Pure; each parser throws an Error that says
// what is wrong with the text.

import { parseCapability } from '../../core/capabilities.ts';
import { isCdiName } from '../../core/cdi-name.ts';
import {
  type Device,
  emptyMount,
  emptySecurityOptions,
  type Mount,
  type SecurityOptions,
  type Ulimit,
} from '../../core/generated/objects.ts';
import { parseTmpfsOption } from './mounts.ts';
import { parseBoolean, parseBytes, parseInteger } from './units.ts';
import { splitKeyValue } from './words.ts';

/** "NAME:ADDRESS" or "NAME=ADDRESS" as a line for /etc/hosts. */
export function parseHost(text: string): string {
  const at = text.search(/[:=]/);
  const name = text.slice(0, at);
  const address = text.slice(at + 1).replace(/^\[(.*)\]$/, '$1');
  if (at <= 0 || address === '') throw new Error('must be NAME:ADDRESS');
  return `${address} ${name}`;
}

/** Lines without a host: all of a NAME, or the one "NAME:ADDRESS". */
export function withoutHost(lines: readonly string[], wanted: string): readonly string[] {
  const at = wanted.search(/[:=]/);
  const line = at < 0 ? undefined : parseHost(wanted);
  const names = (text: string) => text.split(/\s+/).slice(1);
  return lines.filter((text) => (line === undefined ? !names(text).includes(wanted) : text !== line));
}

/** "nofile=1024:2048"; without the second, both are the same. */
export function parseUlimit(text: string): Ulimit {
  const { key: name, value } = splitKeyValue(text);
  const [soft = '', hard = soft, ...rest] = (value ?? '').split(':');
  if (name === '' || soft === '' || rest.length > 0) throw new Error('must be NAME=SOFT[:HARD]');
  return { name, soft: parseLimit(soft), hard: parseLimit(hard) };
}

function parseLimit(text: string): number {
  return text === 'unlimited' ? -1 : parseInteger(text);
}

/** "NAME=VALUE", both there. */
export function parseSetting(text: string): readonly [string, string] {
  const { key, value } = splitKeyValue(text);
  if (key === '' || value === undefined) throw new Error('must be NAME=VALUE');
  return [key, value];
}

export const RESET_CAPABILITIES = 'RESET';

/** Of a list to add or to drop; "RESET" empties the list. */
export function parseCapabilityChange(text: string): string {
  if (text.trim().toUpperCase() === RESET_CAPABILITIES) return RESET_CAPABILITIES;
  const name = parseCapability(text);
  if (name === undefined) throw new Error('must be a capability such as NET_ADMIN, or ALL');
  return name;
}

/** "HOST[:CONTAINER[:rwm]]", or the name of a device that a vendor describes in files of nodes. */
export function parseDevice(text: string): Device {
  if (isCdiName(text)) return cdiDevice(text);
  const [pathOnHost = '', second, third, ...rest] = text.split(':');
  if (!pathOnHost.startsWith('/') || rest.length > 0)
    throw new Error('must be /dev/NAME[:PATH IN CONTAINER[:rwm]] or vendor.com/class=name');
  const isShort = third === undefined && second !== undefined && /^[rwm]{1,3}$/.test(second);
  const pathInContainer = isShort || !second ? pathOnHost : second;
  return { pathOnHost, pathInContainer, permissions: (isShort ? second : third) || 'rwm' };
}

function cdiDevice(name: string): Device {
  return { pathOnHost: name, pathInContainer: name, permissions: '' };
}

const GPU = 'nvidia.com/gpu';

/** "all", how many, or "device=A,B": as the vendor's files on nodes name them. */
export function parseGpus(text: string): Device[] {
  const plain = text.replaceAll('"', '');
  const names = /^\d+$/.test(plain)
    ? Array.from({ length: Number(plain) }, (_, index) => String(index))
    : plain === 'all'
      ? ['all']
      : (/^device=(.+)$/.exec(plain)?.[1] ?? '').split(',');
  const devices = names.map((name) => `${GPU}=${name}`);
  if (devices.length === 0 || !devices.every(isCdiName))
    throw new Error('must be "all", a number from 1, or device=NAME[,NAME]');
  return devices.map(cdiDevice);
}

/** A size, or -1 for any. */
export function parseSwap(text: string): number {
  return text === '-1' ? -1 : parseBytes(text);
}

/** "PATH[:OPTION,…]" */
export function parseTmpfs(text: string): Mount {
  const colon = text.indexOf(':');
  const draft = { ...emptyMount, type: 'tmpfs' as const, target: colon < 0 ? text : text.slice(0, colon) };
  if (!draft.target.startsWith('/')) throw new Error('must be PATH[:OPTIONS] with an absolute path');
  const words =
    colon < 0
      ? []
      : text
          .slice(colon + 1)
          .split(',')
          .filter(Boolean);
  return words.reduce(parseTmpfsOption, draft);
}

/** One --security-opt, as it was written. */
export interface SecurityWord {
  readonly key: string;
  readonly value: string | undefined;
}

const SECURITY_KEYS: readonly string[] = ['apparmor', 'label', 'no-new-privileges', 'seccomp', 'systempaths'];

export function parseSecurityWord(text: string): SecurityWord {
  const separator = /[=:]/.exec(text)?.index ?? -1;
  const key = separator < 0 ? text : text.slice(0, separator);
  const value = separator < 0 ? undefined : text.slice(separator + 1);
  if (!SECURITY_KEYS.includes(key)) throw new Error(`is unknown; known are ${SECURITY_KEYS.join(', ')}`);
  if (key === 'no-new-privileges') {
    if (value !== undefined) parseBoolean(value);
  } else if (!value) throw new Error(`must be ${key}=VALUE`);
  if (key === 'systempaths' && value !== 'unconfined') throw new Error('must be systempaths=unconfined');
  if (key === 'label' && value !== undefined) applyLabel(emptySecurityOptions, value);
  return { key, value };
}

/** The files that a list of words names. */
export function seccompFiles(words: readonly SecurityWord[]): string[] {
  return words.flatMap(({ key, value = '' }) =>
    key === 'seccomp' && value !== 'unconfined' && value !== 'builtin' ? [value] : [],
  );
}

/** `profiles` are the contents of the files. */
export function applySecurityWord(
  current: SecurityOptions,
  { key, value = '' }: SecurityWord,
  profiles: ReadonlyMap<string, string>,
): SecurityOptions {
  switch (key) {
    case 'no-new-privileges':
      return { ...current, noNewPrivileges: value === '' || parseBoolean(value) };
    case 'seccomp':
      return { ...current, seccomp: value === 'builtin' ? '' : (profiles.get(value) ?? value) };
    case 'apparmor':
      return { ...current, appArmor: value };
    case 'label':
      return applyLabel(current, value);
    default:
      return { ...current, systemPathsUnconfined: true };
  }
}

function applyLabel(current: SecurityOptions, text: string): SecurityOptions {
  const label = current.seLinux ?? { disabled: false, user: '', role: '', type: '', level: '' };
  if (text === 'disable') return { ...current, seLinux: { ...label, disabled: true } };
  const colon = text.indexOf(':');
  const part = text.slice(0, colon);
  if (!['user', 'role', 'type', 'level'].includes(part))
    throw new Error('must be label=user:USER, role:ROLE, type:TYPE, level:LEVEL or disable');
  return { ...current, seLinux: { ...label, [part]: text.slice(colon + 1) } };
}

/** As if the option had never been given. */
export function withoutSecurity(current: SecurityOptions, key: string): SecurityOptions {
  const { seLinux, ...rest } = current;
  switch (key) {
    case 'no-new-privileges':
      return { ...current, noNewPrivileges: false };
    case 'seccomp':
      return { ...current, seccomp: '' };
    case 'apparmor':
      return { ...current, appArmor: '' };
    case 'label':
      return rest;
    default:
      return { ...current, systemPathsUnconfined: false };
  }
}

export function parseSecurityKey(text: string): string {
  if (!SECURITY_KEYS.includes(text)) throw new Error(`is unknown; known are ${SECURITY_KEYS.join(', ')}`);
  return text;
}
