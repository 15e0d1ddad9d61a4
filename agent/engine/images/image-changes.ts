// Lines of a Dockerfile that change the configuration of an image that is made without one: CMD, ENV and so on. Pure.

import { invalidField } from '../../../core/errors.ts';

/** Of an image's configuration, in its own spelling. */
export interface RunConfiguration {
  Cmd?: string[];
  Entrypoint?: string[];
  Env?: string[];
  ExposedPorts?: Record<string, object>;
  Labels?: Record<string, string>;
  StopSignal?: string;
  User?: string;
  Volumes?: Record<string, object>;
  WorkingDir?: string;
}

type Change = (configuration: RunConfiguration, rest: string) => RunConfiguration;

const CHANGES: Readonly<Record<string, Change>> = {
  CMD: (configuration, rest) => ({ ...configuration, Cmd: parseCommand(rest) }),
  ENTRYPOINT: (configuration, rest) => ({ ...configuration, Entrypoint: parseCommand(rest) }),
  ENV: (configuration, rest) => {
    const entries = new Map((configuration.Env ?? []).map((entry) => [entry.split('=')[0], entry]));
    for (const [key, value] of parsePairs(rest)) entries.set(key, `${key}=${value}`);
    return { ...configuration, Env: [...entries.values()] };
  },
  EXPOSE: (configuration, rest) => ({
    ...configuration,
    ExposedPorts: { ...configuration.ExposedPorts, ...asKeys(splitWords(rest).map(parsePort)) },
  }),
  LABEL: (configuration, rest) => ({
    ...configuration,
    Labels: { ...configuration.Labels, ...Object.fromEntries(parsePairs(rest)) },
  }),
  STOPSIGNAL: (configuration, rest) => ({ ...configuration, StopSignal: rest }),
  USER: (configuration, rest) => ({ ...configuration, User: rest }),
  VOLUME: (configuration, rest) => ({
    ...configuration,
    Volumes: { ...configuration.Volumes, ...asKeys(parseList(rest) ?? splitWords(rest)) },
  }),
  WORKDIR: (configuration, rest) => ({ ...configuration, WorkingDir: rest }),
};

/** Throws `invalid-argument` naming the line that cannot be understood. */
export function applyChanges(lines: readonly string[]): RunConfiguration {
  let configuration: RunConfiguration = {};
  for (const line of lines) {
    const [, word = '', rest = ''] = /^\s*([A-Za-z]+)\s+(.*\S)\s*$/s.exec(line) ?? [];
    const change = CHANGES[word.toUpperCase()];
    if (change === undefined)
      throw invalidField(
        'change',
        `${JSON.stringify(line)} must be one of ${Object.keys(CHANGES).join(', ')}, and what it says`,
      );
    configuration = change(configuration, rest);
  }
  return configuration;
}

/** A JSON list is a program and its arguments; anything else a line for the shell. */
function parseCommand(text: string): string[] {
  return parseList(text) ?? ['/bin/sh', '-c', text];
}

function parseList(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return undefined;
}

/** "A=1 B="two words"", or the older "A 1". */
function parsePairs(text: string): [string, string][] {
  if (!/^[^\s=]+=/.test(text)) {
    const [, key = '', value = ''] = /^(\S+)\s+(.*)$/s.exec(text) ?? [];
    if (key === '') throw invalidField('change', `${JSON.stringify(text)} must be KEY=VALUE`);
    return [[key, value]];
  }
  return splitWords(text).map((word) => {
    const at = word.indexOf('=');
    if (at <= 0) throw invalidField('change', `${JSON.stringify(word)} must be KEY=VALUE`);
    return [word.slice(0, at), word.slice(at + 1)];
  });
}

/** At blanks outside of quotes, which are taken off. */
function splitWords(text: string): string[] {
  return [...text.matchAll(/(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'])+/g)].map(([word]) =>
    word.replace(/"((?:\\.|[^"\\])*)"|'([^']*)'|\\(.)/g, (_, double, single, escaped) =>
      double === undefined ? (single ?? escaped) : double.replace(/\\(.)/g, '$1'),
    ),
  );
}

function parsePort(text: string): string {
  const [, port = '', protocol = 'tcp'] = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/i.exec(text) ?? [];
  if (port === '' || Number(port) > 65_535)
    throw invalidField('change', `EXPOSE ${text} must be PORT[/tcp|udp|sctp]`);
  return `${port}/${protocol.toLowerCase()}`;
}

function asKeys(names: readonly string[]): Record<string, object> {
  return Object.fromEntries(names.map((name) => [name, {}]));
}
