// How the daemon is told what to do: flags > TSSWARM_* > the configuration file > defaults, one table for all four.
// The result is frozen and handed down; nothing else reads the environment.

import { existsSync, readFileSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import { invalidField, messageOf } from '../core/errors.ts';

interface Option<T> {
  readonly default: T;
  readonly parse: (text: string, field: string) => T;
  readonly help: string;
}

const text = (value: string) => value;
const list = (value: string) => value.split(',').filter((item) => item !== '');
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
  runtime: option<'auto' | 'crun' | 'runc'>('auto', oneOf('auto', 'crun', 'runc'), 'Container runtime'),
  containerd: option('containerd', text, 'containerd program to start'),
  subnet: option('', text, 'Addresses of the node-local network (default: chosen)'),
  label: option<readonly string[]>([], list, 'Engine labels, KEY=VALUE (comma-separated)'),
  'log-level': option<'debug' | 'info' | 'warn' | 'error'>(
    'info',
    oneOf('debug', 'info', 'warn', 'error'),
    'Least important lines to log',
  ),
} satisfies Record<string, Option<never> | Option<unknown>>;

type OptionName = keyof typeof OPTIONS;
export type DaemonConfig = { readonly [K in OptionName]: (typeof OPTIONS)[K]['default'] };
/** Where each value came from: "flag", "environment", the file's name, or "default". */
export type ConfigSources = Readonly<Record<OptionName, string>>;

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
  const file = readConfigFile(configFile);
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
  return { config: Object.freeze(config) as DaemonConfig, sources: sources as ConfigSources };
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

function readConfigFile(file: string): Map<string, string> {
  if (!existsSync(file)) return new Map();
  try {
    const content: unknown = parseYaml(readFileSync(file, 'utf8')) ?? {};
    if (typeof content !== 'object' || Array.isArray(content))
      throw invalidField(file, 'must hold "option: value" lines');
    // "option:" without a value says nothing.
    const said = Object.entries(content as object).filter(([, value]) => value !== null);
    return new Map(said.map(([name, value]) => [name, String(value)]));
  } catch (error) {
    throw invalidField(file, messageOf(error));
  }
}
