// `tsswarm __complete WORDS…`: what the last word may become. Cobra's protocol.

import type { Command, CompletionKind } from '../command.ts';
import { type CommandGroup, findChild, isGroup } from '../command-entry.ts';
import { commandTree } from '../command-tree.ts';
import type { Connection } from '../connection.ts';
import type { Flag } from '../flags/flag.ts';
import type { Io } from '../io.ts';
import { payloadCalls } from '../payloads/calls.ts';
import { readTasks, TaskNames } from '../tasks/task-list.ts';

/** Bits of the directive. */
const FILES = 0;
const NO_SPACE = 2;
const NO_FILES = 4;
// A shell that waits for a name is worse than one without.
const LOOK_UP_LIMIT_MS = 1_000;

interface Candidates {
  /** "value" or "value<TAB>text". */
  readonly lines: readonly string[];
  readonly directive: number;
}

export async function complete(words: readonly string[], io: Io, connection: Connection): Promise<number> {
  const { lines, directive } = await findCandidates(words, connection);
  await io.out(`${[...lines, `:${directive}`].join('\n')}\n`);
  return 0;
}

async function findCandidates(words: readonly string[], connection: Connection): Promise<Candidates> {
  let group: CommandGroup = commandTree;
  const current = words.at(-1) ?? '';
  for (let position = 0; position < words.length - 1; position++) {
    const entry = findChild(group, words[position] as string);
    if (entry === undefined) return { lines: [], directive: NO_FILES };
    if (!isGroup(entry))
      return completeCommand((await entry.load()).command, words.slice(position + 1), connection);
    group = entry;
  }
  const lines = group.children
    .filter((entry) => !entry.isHidden && entry.name.startsWith(current))
    .map((entry) => `${entry.name}\t${entry.summary}`);
  return { lines, directive: NO_FILES };
}

async function completeCommand(
  command: Command,
  words: readonly string[],
  connection: Connection,
): Promise<Candidates> {
  const current = words.at(-1) ?? '';
  const pending = pendingFlag(command, words.at(-2));
  if (pending !== undefined) {
    const choices = pending.choices ?? (await lookUpNames(pending.completes, connection).catch(() => []));
    const lines = choices.filter((choice) => choice.startsWith(current));
    return { lines, directive: lines.length > 0 ? NO_FILES : FILES };
  }
  if (current.startsWith('-')) {
    const flags = Object.entries(command.flags).filter(([, flag]) => !flag.isUnsupported);
    const lines = [...flags.map(([name, flag]) => `--${name}\t${flag.help}`), '--help\tShow help'];
    return { lines: lines.filter((line) => line.startsWith(current)), directive: NO_FILES };
  }
  if (command.completes === 'file') return { lines: [], directive: FILES };
  const names = await lookUpNames(command.completes, connection).catch(() => []);
  const isScale = command.usage.startsWith('SERVICE=');
  const lines = names.filter((name) => name.startsWith(current)).map((name) => (isScale ? `${name}=` : name));
  return { lines, directive: isScale ? NO_FILES | NO_SPACE : NO_FILES };
}

/** The flag whose value the last word is. */
function pendingFlag(command: Command, word: string | undefined): Flag | undefined {
  if (word === undefined || !word.startsWith('-') || word.includes('=')) return undefined;
  const found = Object.entries(command.flags).find(
    ([name, flag]) => word === `--${name}` || (flag.shorthand !== undefined && word === `-${flag.shorthand}`),
  );
  return found === undefined || found[1].arity === 'switch' ? undefined : found[1];
}

async function lookUpNames(
  kind: CompletionKind | undefined,
  connection: Connection,
): Promise<readonly string[]> {
  const options = { timeoutMs: LOOK_UP_LIMIT_MS };
  if (kind === undefined || kind === 'file') return [];
  if (kind === 'service') {
    const { services } = await (await connection.control()).listServices({}, options);
    return services.map(({ service }) => service.spec.name);
  }
  if (kind === 'task') {
    const control = await connection.control();
    const [{ services }, { tasks }] = await Promise.all([
      control.listServices({}, options),
      readTasks(control, {}),
    ]);
    const names = new TaskNames({ services: services.map(({ service }) => service), nodes: [] }, false);
    return tasks.filter(({ status }) => status.state === 'running').map((task) => names.ofTask(task));
  }
  if (kind === 'network') {
    const { networks } = await (await connection.control()).listNetworks({}, options);
    return networks.map(({ network }) => network.spec.name);
  }
  if (kind === 'secret' || kind === 'config') {
    const sources = await payloadCalls(await connection.control(), kind).list();
    return sources.map(({ spec }) => spec.name);
  }
  if (kind === 'node') {
    const { nodes } = await (await connection.control()).listNodes({}, options);
    return nodes.map((node) => node.description.hostname);
  }
  if (kind === 'image') {
    const { images } = await (await connection.node()).listImages({}, options);
    return images.flatMap((image) => image.tags);
  }
  if (kind === 'volume') {
    const { volumes } = await (await connection.node()).listVolumes({}, options);
    return volumes.map(({ name }) => name);
  }
  return kind;
}
