// Docker's flag grammar (pflag's): "--name value", "--name=value", clusters of shorthands ("-dq"), a shorthand with
// its value attached ("-p8080"), "--" ends the flags. Pure.

import { messageOf } from '../../core/errors.ts';
import { badFlag } from '../usage-error.ts';
import type { Flag, FlagTable, FlagValues } from './flag.ts';

export interface ParsedFlags<F extends FlagTable> {
  readonly flags: FlagValues<F>;
  readonly words: readonly string[];
  /** Names of the flags that were given. */
  readonly given: ReadonlySet<string>;
  readonly wantsHelp: boolean;
}

export interface GrammarOptions {
  /** False: the first word ends the flags, what follows belongs to somebody else. */
  readonly isInterspersed?: boolean;
}

/** Throws a UsageError with Docker's exit status for a bad flag. */
export function parseFlags<F extends FlagTable>(
  table: F,
  argv: readonly string[],
  { isInterspersed = true }: GrammarOptions = {},
): ParsedFlags<F> {
  const values: Record<string, unknown> = {};
  const given = new Set<string>();
  const words: string[] = [];
  let wantsHelp = false;
  for (const [name, flag] of Object.entries(table)) if (flag.arity === 'many') values[name] = [];
  const store = (name: string, raw: string) => {
    const flag = table[name] as Flag;
    const value = parseValue(name, flag, raw);
    given.add(name);
    if (flag.arity === 'many') (values[name] as unknown[]).push(value);
    else values[name] = value;
  };

  for (let position = 0; position < argv.length; position++) {
    const word = argv[position] as string;
    if (word === '--') {
      words.push(...argv.slice(position + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      if (!isInterspersed) {
        words.push(...argv.slice(position));
        break;
      }
      words.push(word);
      continue;
    }
    if (word === '--help' || word === '-h') {
      wantsHelp = true;
      continue;
    }
    const next = () => {
      position++;
      return argv[position];
    };
    const pairs = word.startsWith('--') ? readLong(table, word, next) : readCluster(table, word, next);
    for (const [name, raw] of pairs) store(name, raw);
  }
  return { flags: values as FlagValues<F>, words, given, wantsHelp };
}

type Pair = readonly [name: string, raw: string];

function readLong(table: FlagTable, word: string, next: () => string | undefined): Pair[] {
  const equals = word.indexOf('=');
  const name = word.slice(2, equals < 0 ? undefined : equals);
  const flag = Object.hasOwn(table, name) ? table[name] : undefined;
  if (flag === undefined) throw badFlag(name === '' ? `bad flag syntax: ${word}` : `unknown flag: --${name}`);
  requireSupported(name, flag);
  if (equals >= 0) return [[name, word.slice(equals + 1)]];
  if (flag.arity === 'switch') return [[name, 'true']];
  const value = next();
  if (value === undefined) throw badFlag(`flag needs an argument: --${name}`);
  return [[name, value]];
}

function readCluster(table: FlagTable, word: string, next: () => string | undefined): Pair[] {
  const pairs: Pair[] = [];
  for (let index = 1; index < word.length; index++) {
    const letter = word[index] as string;
    const found = Object.entries(table).find(([, flag]) => flag.shorthand === letter);
    if (found === undefined) throw badFlag(`unknown shorthand flag: '${letter}' in ${word}`);
    const [name, flag] = found;
    requireSupported(name, flag);
    const rest = word.slice(index + 1);
    if (flag.arity === 'switch' && !rest.startsWith('=')) {
      pairs.push([name, 'true']);
      continue;
    }
    const value = rest === '' ? next() : rest.replace(/^=/, '');
    if (value === undefined) throw badFlag(`flag needs an argument: '${letter}' in ${word}`);
    pairs.push([name, value]);
    break;
  }
  return pairs;
}

function requireSupported(name: string, flag: Flag): void {
  if (flag.isUnsupported) throw badFlag(`--${name} is not supported yet`);
}

function parseValue(name: string, flag: Flag, raw: string): unknown {
  try {
    return flag.parse(raw);
  } catch (error) {
    const title = flag.shorthand === undefined ? `--${name}` : `-${flag.shorthand}, --${name}`;
    throw badFlag(`invalid argument ${JSON.stringify(raw)} for "${title}" flag: ${messageOf(error)}`);
  }
}
