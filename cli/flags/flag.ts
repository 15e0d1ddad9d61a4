// Flags as data: one table per command both parses and documents it.

import {
  parseBoolean,
  parseBytes,
  parseCount,
  parseCpus,
  parseDuration,
  parseInteger,
  parseRatio,
} from './units.ts';

/** switch: takes no value unless by "="; one: the last wins; many: they add up. */
export type Arity = 'switch' | 'one' | 'many';

export interface Flag<T = unknown, A extends Arity = Arity> {
  readonly arity: A;
  /** Shown in help behind the name. */
  readonly type: string;
  readonly help: string;
  readonly parse: (text: string) => T;
  readonly shorthand?: string;
  /** What happens when it is not given, for help. */
  readonly defaultText?: string;
  /** Known to Swarm's operators, refused by this version. */
  readonly isUnsupported?: true;
  /** Candidates for completion. */
  readonly choices?: readonly string[];
  /** What its value names, for completion. */
  readonly completes?: 'network' | 'secret' | 'config';
}

export type FlagTable = Readonly<Record<string, Flag>>;

/** What a command gets: undefined when not given, lists empty. */
export type FlagValues<F extends FlagTable> = {
  readonly [K in keyof F]: F[K] extends Flag<infer T, infer A>
    ? A extends 'many'
      ? readonly T[]
      : T | undefined
    : never;
};

export interface FlagOptions {
  readonly shorthand?: string;
  readonly defaultText?: string;
  readonly completes?: 'network' | 'secret' | 'config';
}

const text = (value: string) => value;

export function switchFlag(help: string, options: FlagOptions = {}): Flag<boolean, 'switch'> {
  return { arity: 'switch', type: '', help, parse: parseBoolean, ...options };
}

export function textFlag(help: string, options: FlagOptions = {}): Flag<string, 'one'> {
  return { arity: 'one', type: 'string', help, parse: text, ...options };
}

export function listFlag(help: string, options: FlagOptions = {}): Flag<string, 'many'> {
  return { arity: 'many', type: 'list', help, parse: text, ...options };
}

export function durationFlag(help: string, options: FlagOptions = {}): Flag<number, 'one'> {
  return { arity: 'one', type: 'duration', help, parse: parseDuration, ...options };
}

export function bytesFlag(help: string, options: FlagOptions = {}): Flag<number, 'one'> {
  return { arity: 'one', type: 'bytes', help, parse: parseBytes, ...options };
}

export function cpusFlag(help: string, options: FlagOptions = {}): Flag<number, 'one'> {
  return { arity: 'one', type: 'decimal', help, parse: parseCpus, ...options };
}

export function countFlag(help: string, options: FlagOptions = {}): Flag<number, 'one'> {
  return { arity: 'one', type: 'uint', help, parse: parseCount, ...options };
}

export function integerFlag(help: string, options: FlagOptions = {}): Flag<number, 'one'> {
  return { arity: 'one', type: 'int', help, parse: parseInteger, ...options };
}

export function ratioFlag(help: string, options: FlagOptions = {}): Flag<number, 'one'> {
  return { arity: 'one', type: 'float', help, parse: parseRatio, ...options };
}

/** A value of its own syntax. */
export function valueFlag<T>(
  type: string,
  parse: (text: string) => T,
  help: string,
  options: FlagOptions & { readonly choices?: readonly string[] } = {},
): Flag<T, 'one'> {
  return { arity: 'one', type, help, parse, ...options };
}

export function valuesFlag<T>(
  type: string,
  parse: (text: string) => T,
  help: string,
  options: FlagOptions = {},
): Flag<T, 'many'> {
  return { arity: 'many', type, help, parse, ...options };
}

/** Flags that Swarm's operators know and this version refuses. */
export function unsupportedFlags<const N extends string>(
  names: readonly N[],
  shorthands: Readonly<Record<string, string>> = {},
): Readonly<Record<N, Flag<string, 'one'>>> {
  const entries = names.map((name): [N, Flag<string, 'one'>] => [
    name,
    {
      arity: 'one',
      type: 'string',
      help: '',
      parse: text,
      isUnsupported: true,
      ...(shorthands[name] && { shorthand: shorthands[name] }),
    },
  ]);
  return Object.fromEntries(entries) as Record<N, Flag<string, 'one'>>;
}
