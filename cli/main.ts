// Finds the command that argv names, parses its flags, runs it, and turns failures into messages and exit statuses.

import { hasCode, messageOf, SwarmError } from '../core/errors.ts';
import { VERSION } from '../core/version.ts';
import { type CommandGroup, type CommandLeaf, findChild, isGroup } from './command-entry.ts';
import { commandTree } from './command-tree.ts';
import { Connection, DEFAULT_HOST } from './connection.ts';
import { switchFlag, textFlag, unsupportedFlags } from './flags/flag.ts';
import { parseFlags } from './flags/parse-flags.ts';
import type { Io } from './io.ts';
import { EXIT_FAILURE, UsageError } from './usage-error.ts';

export const globalFlags = {
  host: textFlag('Socket of the manager', {
    shorthand: 'H',
    defaultText: `$TSSWARM_HOST or ${DEFAULT_HOST}`,
  }),
  version: switchFlag('Print version information and quit', { shorthand: 'v' }),
  ...unsupportedFlags(
    ['config', 'context', 'debug', 'log-level', 'tls', 'tlscacert', 'tlscert', 'tlskey', 'tlsverify'],
    {
      context: 'c',
      debug: 'D',
      'log-level': 'l',
    },
  ),
};

/** Returns the exit status; everything it has to say is said by then. */
export async function runCli(argv: readonly string[], io: Io): Promise<number> {
  const path = [commandTree.name];
  let connection: Connection | undefined;
  try {
    const top = parseFlags(globalFlags, argv, { isInterspersed: false });
    const host = top.flags.host ?? (io.environment['TSSWARM_HOST'] || DEFAULT_HOST);
    if (top.flags.version) {
      await io.out(`tsswarm version ${VERSION}\n`);
      return 0;
    }
    connection = new Connection(host);
    if (top.words[0] === '__complete') {
      const { complete } = await import('./completion/complete.ts');
      return await complete(top.words.slice(1), io, connection);
    }
    return await runEntry(commandTree, path, top.words, io, connection);
  } catch (error) {
    return await report(error, path, io, connection);
  } finally {
    connection?.close();
  }
}

/** Walks down to the command; `path` collects the words that name it. */
async function runEntry(
  group: CommandGroup,
  path: string[],
  words: readonly string[],
  io: Io,
  connection: Connection,
): Promise<number> {
  const [word, ...rest] = words;
  if (word === undefined || word === '--help' || word === '-h' || word === 'help') {
    const { groupHelp } = await import('./help.ts');
    await io.out(groupHelp(path, group, globalFlags));
    return 0;
  }
  if (word.startsWith('-')) parseFlags({}, [word]);
  const entry = findChild(group, word);
  if (entry === undefined) {
    if (group.unsupported.includes(word))
      throw new UsageError(`${path.join(' ')} ${word} is not supported yet`);
    throw new UsageError(`${path.join(' ')}: unknown command: ${[...path, word].join(' ')}`);
  }
  path.push(entry.name);
  if (isGroup(entry)) return runEntry(entry, path, rest, io, connection);
  return runLeaf(entry, path, rest, io, connection);
}

async function runLeaf(
  leaf: CommandLeaf,
  path: readonly string[],
  argv: readonly string[],
  io: Io,
  connection: Connection,
): Promise<number> {
  const { command } = await leaf.load();
  const { flags, given, words, wantsHelp } = parseFlags(command.flags, argv, {
    isInterspersed: command.isInterspersed ?? true,
  });
  if (wantsHelp) {
    const { commandHelp } = await import('./help.ts');
    await io.out(commandHelp(path, leaf, command));
    return 0;
  }
  requireArguments(path.join(' '), words.length, command.args);
  return (await command.run({ flags, given, args: words, io, connection })) ?? 0;
}

function requireArguments(name: string, count: number, { min, max }: { min: number; max: number }): void {
  if (count >= min && count <= max) return;
  if (max === 0) throw new UsageError(`"${name}" accepts no arguments.`);
  const quantity = min === max ? `exactly ${min}` : count < min ? `at least ${min}` : `at most ${max}`;
  const number = min === max ? min : count < min ? min : max;
  throw new UsageError(`"${name}" requires ${quantity} argument${number === 1 ? '' : 's'}.`);
}

async function report(
  error: unknown,
  path: readonly string[],
  io: Io,
  connection: Connection | undefined,
): Promise<number> {
  if (error instanceof UsageError) {
    io.err(`${error.message}\nSee '${path.join(' ')} --help'.\n`);
    return error.exitCode;
  }
  const shown =
    connection !== undefined && hasCode(error, 'unavailable') ? await connection.diagnose(error) : error;
  io.err(`Error: ${messageOf(shown)}\n`);
  if (shown instanceof SwarmError && shown.hint !== undefined) io.err(`${shown.hint}\n`);
  return EXIT_FAILURE;
}
