// How the daemon is told what to do: flags > TSSWARM_* > the configuration file > defaults, one table for all four.
// The result is frozen and handed down; nothing else reads the environment.

import { existsSync, readFileSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import { invalidField, messageOf } from '../core/errors.ts';
import type { LogDriver } from '../core/generated/objects.ts';
import { parseGenericResources } from '../core/generic-resource.ts';
import { parseLogDriver } from '../core/log-driver.ts';
import type { EtcdSettings } from '../manager/etcd-log/settings.ts';
import { noRegistries, parseRegistries, type RegistriesConfig } from './registries-config.ts';

interface Option<T> {
  readonly default: T;
  readonly parse: (text: string, field: string) => T;
  readonly help: string;
}

const text = (value: string) => value;
const list = (value: string) => value.split(',').filter((item) => item !== '');
const genericResources = (value: string) => {
  const resources = list(value);
  parseGenericResources(resources);
  return resources;
};
const oneOf =
  <T extends string>(...choices: readonly T[]) =>
  (value: string, field: string): T => {
    if (!choices.includes(value as T))
      throw invalidField(field, `"${value}" must be one of ${choices.join(', ')}`);
    return value as T;
  };
const absolutePath = (value: string, field: string) => {
  if (!value.startsWith('/')) throw invalidField(field, `"${value}" must be an absolute path`);
  return value;
};
const address = (value: string, field: string) => {
  const port = Number(/^(?:\[[0-9a-f:]+\]|[^:\s]*):(\d{1,5})$/i.exec(value)?.[1] ?? Number.NaN);
  if (!(port <= 65_535)) throw invalidField(field, `"${value}" must be HOST:PORT`);
  return value;
};
const storeKind = (value: string, field: string) => {
  if (value !== 'raft') etcdHosts(value, field);
  return value;
};
const keyPrefix = (value: string, field: string) => {
  if (!/^(\/[^/\s]+)+$/.test(value))
    throw invalidField(field, `"${value}" must look like /name or /name/name`);
  return value;
};
const whole =
  (min: number, max: number) =>
  (value: string, field: string): number => {
    if (!/^\d+$/.test(value) || Number(value) < min || Number(value) > max)
      throw invalidField(field, `"${value}" must be a whole number from ${min} to ${max}`);
    return Number(value);
  };
const optionalPath = (value: string, field: string) => (value === '' ? value : absolutePath(value, field));

/** "etcd=https://a:2379,b:2379" as URLs of one scheme. */
function etcdHosts(value: string, field: string): string[] {
  const [, hosts] = /^etcd=(.+)$/.exec(value) ?? [];
  if (hosts === undefined) throw invalidField(field, `"${value}" must be raft or etcd=HOST:PORT,HOST:PORT`);
  const scheme = /^https?:\/\//.exec(hosts)?.[0] ?? 'http://';
  return list(hosts).map((host) => {
    const url = host.includes('://') ? host : `${scheme}${host}`;
    if (!url.startsWith(scheme))
      throw invalidField(field, 'all members of etcd are reached by http, or all by https');
    return `${scheme}${address(url.slice(scheme.length), field)}`;
  });
}
const option = <T>(value: T, parse: Option<T>['parse'], help: string): Option<T> => ({
  default: value,
  parse,
  help,
});

const OPTIONS = {
  'data-root': option(
    '/var/lib/tsswarm',
    absolutePath,
    'Where everything that must survive a reboot is kept',
  ),
  'run-dir': option('/run/tsswarm', absolutePath, 'Sockets, namespaces and other things of this boot'),
  'metrics-addr': option('127.0.0.1:9323', address, 'Address that serves /metrics'),
  'insecure-registry': option<readonly string[]>(
    [],
    list,
    'Registries spoken to without TLS (comma-separated)',
  ),
  'image-keep-days': option(
    30,
    whole(0, 36_500),
    'Days after which an unused image that a registry has is removed (0: never)',
  ),
  'image-disk-high': option(85, whole(1, 100), 'Percent of the disk used from which images are removed'),
  'image-disk-low': option(80, whole(1, 100), 'Percent of the disk used down to which they are'),
  store: option('raft', storeKind, "Where managers keep the cluster's state: raft, or etcd=HOST:PORT,…"),
  'store-prefix': option('/tsswarm', keyPrefix, 'Of all keys in etcd'),
  'store-ca': option('', optionalPath, "etcd's authority, PEM (default: the system's)"),
  'store-cert': option('', optionalPath, 'Certificate to show to etcd, PEM'),
  'store-key': option('', optionalPath, 'Its private key, PEM'),
  'store-user': option('', text, 'User of etcd'),
  'store-password-file': option('', optionalPath, 'File with the password of that user'),
  'store-compaction': option<'on' | 'off'>(
    'on',
    oneOf('on', 'off'),
    "Whether the leader discards etcd's history after ten minutes",
  ),
  runtime: option<'auto' | 'crun' | 'runc'>('auto', oneOf('auto', 'crun', 'runc'), 'Container runtime'),
  userns: option<'host' | 'private'>(
    'host',
    oneOf('host', 'private'),
    "Users of containers whose service says nothing: the host's, or their own",
  ),
  containerd: option('containerd', text, 'containerd program to start'),
  subnet: option('', text, 'Addresses of the node-local network (default: chosen)'),
  'log-driver': option('', text, 'Log driver of services that name none (default: json-file of 64 MiB)'),
  'log-opt': option<readonly string[]>([], list, 'Its options, KEY=VALUE (comma-separated)'),
  label: option<readonly string[]>([], list, 'Engine labels, KEY=VALUE (comma-separated)'),
  'node-generic-resource': option<readonly string[]>(
    [],
    genericResources,
    'What services may reserve here, KIND=COUNT or KIND=NAME (comma-separated)',
  ),
  'log-level': option<'debug' | 'info' | 'warn' | 'error'>(
    'info',
    oneOf('debug', 'info', 'warn', 'error'),
    'Least important lines to log',
  ),
} satisfies Record<string, Option<never> | Option<unknown>>;

type OptionName = keyof typeof OPTIONS;
export type DaemonConfig = { readonly [K in OptionName]: (typeof OPTIONS)[K]['default'] } & {
  /** In the file only. */
  readonly registries: RegistriesConfig;
};
/** Where each value came from: "flag", "environment", the file's name, or "default". */
export type ConfigSources = Readonly<Record<OptionName | 'registries', string>>;

export const DEFAULT_CONFIG_FILE = '/etc/tsswarm/config.yaml';

export interface ConfigInput {
  /** `--name value` pairs, the last of a name wins; lists are comma-separated. */
  readonly flags: ReadonlyMap<string, string>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly configFile: string;
}

/** Throws `invalid-argument` naming the option and where the bad value stood. */
export function loadConfig({ flags, environment, configFile }: ConfigInput): {
  config: DaemonConfig;
  sources: ConfigSources;
} {
  const { options: file, registries } = readConfigFile(configFile);
  for (const name of flags.keys()) requireKnown(name, 'flag');
  for (const name of file.keys()) requireKnown(name, configFile);
  const config: Record<string, unknown> = {};
  const sources: Record<string, string> = {};
  for (const [name, { default: fallback, parse }] of Object.entries(OPTIONS)) {
    const variable = `TSSWARM_${name.toUpperCase().replaceAll('-', '_')}`;
    const found = [
      ['flag', flags.get(name)],
      ['environment', environment[variable]],
      [configFile, file.get(name)],
    ].find(([, value]) => value !== undefined) as [string, string] | undefined;
    sources[name] = found?.[0] ?? 'default';
    config[name] =
      found === undefined ? fallback : (parse as Option<unknown>['parse'])(found[1], `${name} (${found[0]})`);
  }
  config['registries'] = registries ?? noRegistries;
  sources['registries'] = registries === undefined ? 'default' : configFile;
  if (Number(config['image-disk-low']) > Number(config['image-disk-high']))
    throw invalidField('image-disk-low', 'must not be above image-disk-high');
  return { config: Object.freeze(config) as DaemonConfig, sources: sources as ConfigSources };
}

/** How to reach etcd, undefined when the managers keep the state themselves. Throws on options that contradict. */
export function etcdSettings(config: DaemonConfig): EtcdSettings | undefined {
  if (config.store === 'raft') return undefined;
  const hosts = etcdHosts(config.store, 'store');
  const files = { caFile: config['store-ca'], certFile: config['store-cert'], keyFile: config['store-key'] };
  const hasFiles = Object.values(files).some((file) => file !== '');
  if (hasFiles && !hosts[0]?.startsWith('https:'))
    throw invalidField('store', 'certificates are for https: say etcd=https://HOST:PORT');
  if ((files.certFile === '') !== (files.keyFile === ''))
    throw invalidField('store-cert', 'goes together with store-key');
  if ((config['store-user'] === '') !== (config['store-password-file'] === ''))
    throw invalidField('store-user', 'goes together with store-password-file');
  return {
    hosts,
    prefix: config['store-prefix'],
    ...files,
    user: config['store-user'],
    passwordFile: config['store-password-file'],
    compaction: config['store-compaction'],
  };
}

/** What services get that name no log driver, undefined when nothing is said. Throws as for a service. */
export function defaultLogDriver(config: DaemonConfig): LogDriver | undefined {
  const given = config['log-opt'];
  if (config['log-driver'] === '' && given.length === 0) return undefined;
  const options = given.map((entry): [string, string] => {
    const at = entry.indexOf('=');
    if (at < 1) throw invalidField('log-opt', `"${entry}" must be KEY=VALUE`);
    return [entry.slice(0, at), entry.slice(at + 1)];
  });
  const driver = { name: config['log-driver'] || 'json-file', options: Object.fromEntries(options) };
  parseLogDriver(driver.name, driver.options);
  return driver;
}

/** The options for `--help`, a line each. */
export function describeOptions(): string {
  return Object.entries(OPTIONS)
    .map(([name, { default: value, help }]) => {
      const shown = String(value) === '' ? '' : ` (default ${String(value)})`;
      return `  --${name.padEnd(20)} ${help}${shown}`;
    })
    .join('\n');
}

function requireKnown(name: string, source: string): void {
  if (!Object.hasOwn(OPTIONS, name))
    throw invalidField(`${name} (${source})`, `unknown option; known are ${Object.keys(OPTIONS).join(', ')}`);
}

interface ConfigFile {
  readonly options: Map<string, string>;
  readonly registries: RegistriesConfig | undefined;
}

function readConfigFile(file: string): ConfigFile {
  if (!existsSync(file)) return { options: new Map(), registries: undefined };
  try {
    const content: unknown = parseYaml(readFileSync(file, 'utf8')) ?? {};
    if (typeof content !== 'object' || Array.isArray(content))
      throw invalidField(file, 'must hold "option: value" lines');
    // "option:" without a value says nothing.
    const said = new Map(Object.entries(content as object).filter(([, value]) => value !== null));
    const registries = said.get('registries');
    said.delete('registries');
    return {
      options: new Map([...said].map(([name, value]) => [name, String(value)])),
      registries: registries === undefined ? undefined : parseRegistries(registries, 'registries'),
    };
  } catch (error) {
    throw invalidField(file, messageOf(error));
  }
}
