// Where a container's output goes, from the name and options of its log driver as operators write them. Pure.

import { invalidField, messageOf, SwarmError } from './errors.ts';
import { compileTemplate } from './template.ts';

export const LOG_DRIVERS: readonly string[] = ['json-file', 'journald', 'none', 'syslog'];

export interface SyslogTarget {
  readonly kind: 'syslog';
  readonly transport: 'unixgram' | 'udp' | 'tcp' | 'tcp+tls';
  /** Path of a socket, or host. */
  readonly host: string;
  readonly port: number;
  /** 0–23. */
  readonly facility: number;
  readonly format: 'rfc3164' | 'rfc5424' | 'rfc5424micro';
  /** Paths on the node. */
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
  readonly skipVerify: boolean;
}

export type LogTarget = { readonly kind: 'journald' } | SyslogTarget;

export interface LogConfig {
  readonly driver: string;
  /** A file is rotated at this size; 0: never. */
  readonly maxSizeBytes: number;
  readonly maxFiles: number;
  /** Files are compressed when they were rotated. */
  readonly compress: boolean;
  /** Lines are kept on the node, where they can be read back. */
  readonly keepsFile: boolean;
  /** Beside the file. */
  readonly target?: LogTarget;
  /** A Go template; empty: the first 12 characters of the task's id. */
  readonly tag: string;
  readonly labels: readonly string[];
  readonly labelsRegex: string;
  readonly env: readonly string[];
  readonly envRegex: string;
}

/** What a tag may refer to. */
export interface TagFacts {
  readonly ID: string;
  readonly FullID: string;
  readonly Name: string;
  readonly ImageName: string;
  readonly DaemonName: string;
}

const FACILITIES =
  'kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp security console solaris-cron local0 local1 local2 local3 local4 local5 local6 local7'.split(
    ' ',
  );
const DAEMON_FACILITY = 3;
const SYSLOG_PORT = 514;
const SYSLOG_TLS_PORT = 6514;
// Of the file beside another driver: Docker's cache.
const CACHE_BYTES = 20 * 2 ** 20;
const CACHE_FILES = 5;

// A tag is stored by operators and filled in on nodes.
const TAG_LIMITS = { outputLengthMax: 1_024, stepsMax: 1_000 };

const SHARED = ['tag', 'labels', 'labels-regex', 'env', 'env-regex'];
const FILE = ['max-size', 'max-file', 'compress'];
const CACHE = ['cache-disabled', 'cache-max-size', 'cache-max-file', 'cache-compress'];
const SYSLOG = [
  ...['syslog-address', 'syslog-facility', 'syslog-format'],
  ...['syslog-tls-ca-cert', 'syslog-tls-cert', 'syslog-tls-key', 'syslog-tls-skip-verify'],
];
const KNOWN: Readonly<Record<string, readonly string[]>> = {
  'json-file': [...FILE, ...SHARED],
  journald: [...SHARED, ...CACHE],
  none: [],
  syslog: [...SYSLOG, ...SHARED, ...CACHE],
};

/** Throws `invalid-argument` naming the option and what would be right. */
export function parseLogDriver(driver: string, options: Readonly<Record<string, string>>): LogConfig {
  const known = KNOWN[driver];
  if (known === undefined)
    throw new SwarmError('unimplemented', `log-driver: "${driver}" is not supported`, {
      hint: `There are ${LOG_DRIVERS.join(', ')}.`,
    });
  for (const key of Object.keys(options))
    if (!known.includes(key))
      throw invalidField(
        'log-opt',
        `"${key}" is unknown; ${driver} has ${known.length === 0 ? 'no options' : known.join(', ')}`,
      );
  const target = targetOf(driver, options);
  return {
    driver,
    ...fileOf(driver, options),
    ...(target && { target }),
    tag: checkedTag(options['tag'] ?? ''),
    labels: list(options['labels']),
    labelsRegex: checkedRegex('labels-regex', options['labels-regex'] ?? ''),
    env: list(options['env']),
    envRegex: checkedRegex('env-regex', options['env-regex'] ?? ''),
  };
}

/** The tag of a container's lines. */
export function formatTag(tag: string, facts: TagFacts): string {
  return tag === '' ? facts.ID : compileTemplate(tag, { limits: TAG_LIMITS })(facts);
}

/** What a container says of itself with each line. */
export function logDetails(
  config: Pick<LogConfig, 'labels' | 'labelsRegex' | 'env' | 'envRegex'>,
  { labels, env }: { readonly labels: Readonly<Record<string, string>>; readonly env: readonly string[] },
): Readonly<Record<string, string>> {
  const variables = env.map((entry) => {
    const at = entry.indexOf('=');
    return [entry.slice(0, at), entry.slice(at + 1)] as const;
  });
  const chosen = (names: readonly string[], regex: string) => {
    const pattern = regex === '' ? undefined : new RegExp(regex);
    return ([name]: readonly [string, string]) => names.includes(name) || pattern?.test(name) === true;
  };
  return Object.fromEntries([
    ...Object.entries(labels).filter(chosen(config.labels, config.labelsRegex)),
    ...variables.filter(chosen(config.env, config.envRegex)),
  ]);
}

function fileOf(
  driver: string,
  options: Readonly<Record<string, string>>,
): Pick<LogConfig, 'maxSizeBytes' | 'maxFiles' | 'compress' | 'keepsFile'> {
  const size = (key: string, usual: number) => parseSize(key, options[key], usual);
  const count = (key: string, usual: number) => parseCount(key, options[key], usual);
  if (driver === 'none') return { maxSizeBytes: 0, maxFiles: 1, compress: false, keepsFile: false };
  if (driver !== 'json-file')
    return {
      maxSizeBytes: size('cache-max-size', CACHE_BYTES),
      maxFiles: count('cache-max-file', CACHE_FILES),
      compress: parseSwitch('cache-compress', options['cache-compress'] ?? 'true'),
      keepsFile: !parseSwitch('cache-disabled', options['cache-disabled']),
    };
  const compress = parseSwitch('compress', options['compress']);
  const file = {
    maxSizeBytes: size('max-size', 0),
    maxFiles: count('max-file', 1),
    compress,
    keepsFile: true,
  };
  if (file.maxFiles > 1 && file.maxSizeBytes === 0) throw invalidField('log-opt', 'max-file needs max-size');
  if (compress && (file.maxFiles < 2 || file.maxSizeBytes === 0))
    throw invalidField('log-opt', 'compress needs max-size, and a max-file of 2 or more');
  return file;
}

function targetOf(driver: string, options: Readonly<Record<string, string>>): LogTarget | undefined {
  if (driver === 'journald') return { kind: 'journald' };
  if (driver !== 'syslog') return undefined;
  const format = options['syslog-format'] || 'rfc3164';
  if (format !== 'rfc3164' && format !== 'rfc5424' && format !== 'rfc5424micro')
    throw invalidField('log-opt', `syslog-format "${format}" must be rfc3164, rfc5424 or rfc5424micro`);
  const address = parseAddress(options['syslog-address'] || 'unix:///dev/log');
  const tls = Object.keys(options).filter((key) => key.startsWith('syslog-tls-'));
  if (tls.length > 0 && address.transport !== 'tcp+tls')
    throw invalidField('log-opt', `${tls[0]} is for syslog-address=tcp+tls://HOST:PORT`);
  const certFile = options['syslog-tls-cert'] ?? '';
  const keyFile = options['syslog-tls-key'] ?? '';
  if ((certFile === '') !== (keyFile === ''))
    throw invalidField('log-opt', 'syslog-tls-cert goes together with syslog-tls-key');
  return {
    kind: 'syslog',
    ...address,
    format,
    facility: parseFacility(options['syslog-facility']),
    caFile: options['syslog-tls-ca-cert'] ?? '',
    certFile,
    keyFile,
    skipVerify: parseSwitch('syslog-tls-skip-verify', options['syslog-tls-skip-verify']),
  };
}

function parseAddress(text: string): Pick<SyslogTarget, 'transport' | 'host' | 'port'> {
  const wrong = () =>
    invalidField(
      'log-opt',
      `syslog-address "${text}" must be unix:///PATH, udp://HOST:PORT, tcp://HOST:PORT or tcp+tls://HOST:PORT`,
    );
  const socket = /^unix(?:gram)?:\/\/(\/.+)$/.exec(text)?.[1];
  if (socket !== undefined) return { transport: 'unixgram', host: socket, port: 0 };
  const match = /^(udp|tcp|tcp\+tls):\/\/(\[[0-9a-f:.]+\]|[^:/\s]+)(?::(\d{1,5}))?$/i.exec(text);
  if (match === null) throw wrong();
  const transport = match[1] as 'udp' | 'tcp' | 'tcp+tls';
  const port = Number(match[3] ?? (transport === 'tcp+tls' ? SYSLOG_TLS_PORT : SYSLOG_PORT));
  if (port < 1 || port > 65_535) throw wrong();
  return { transport, host: (match[2] ?? '').replace(/^\[|\]$/g, ''), port };
}

function parseFacility(text: string | undefined): number {
  if (text === undefined || text === '') return DAEMON_FACILITY;
  const facility = /^\d+$/.test(text) ? Number(text) : FACILITIES.indexOf(text);
  if (facility < 0 || facility >= FACILITIES.length)
    throw invalidField(
      'log-opt',
      `syslog-facility "${text}" must be a name such as daemon or local0, or 0 to 23`,
    );
  return facility;
}

function parseSize(key: string, text: string | undefined, usual: number): number {
  if (text === undefined) return usual;
  const match = /^(\d+)([kmg]?)b?$/i.exec(text);
  if (match === null) throw invalidField('log-opt', `${key} "${text}" must be a size such as 10m`);
  return Number(match[1]) * 1024 ** ' kmg'.indexOf((match[2] || ' ').toLowerCase());
}

function parseCount(key: string, text: string | undefined, usual: number): number {
  if (text === undefined) return usual;
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1)
    throw invalidField('log-opt', `${key} "${text}" must be a whole number from 1`);
  return count;
}

function parseSwitch(key: string, text: string | undefined): boolean {
  if (text === undefined || text === '' || text === 'false') return false;
  if (text === 'true') return true;
  throw invalidField('log-opt', `${key} "${text}" must be true or false`);
}

function list(text = ''): readonly string[] {
  return text.split(',').filter((name) => name !== '');
}

function checkedRegex(key: string, text: string): string {
  try {
    new RegExp(text);
    return text;
  } catch (error) {
    throw invalidField('log-opt', `${key}: ${messageOf(error)}`);
  }
}

function checkedTag(tag: string): string {
  try {
    formatTag(tag, { ID: '', FullID: '', Name: '', ImageName: '', DaemonName: '' });
    return tag;
  } catch (error) {
    throw invalidField('log-opt', `tag: ${messageOf(error)}`);
  }
}
