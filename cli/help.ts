// `--help`, from the same tables that parse. Pure.

import type { Command } from './command.ts';
import { type CommandGroup, type CommandLeaf, isGroup } from './command-entry.ts';
import type { FlagTable } from './flags/flag.ts';

/** Of a command: usage, aliases, flags with their defaults. */
export function commandHelp(path: readonly string[], leaf: CommandLeaf, command: Command): string {
  const name = path.join(' ');
  const aliases = (leaf.aliases ?? []).map((alias) => [...path.slice(0, -1), alias].join(' '));
  const parts = [`Usage:  ${name}${command.usage === '' ? '' : ` ${command.usage}`}`, leaf.summary];
  if (aliases.length > 0) parts.push(`Aliases:\n  ${[name, ...aliases].join(', ')}`);
  const flags = flagHelp(command.flags);
  if (flags !== '') parts.push(`Options:\n${flags}`);
  const refused = Object.entries(command.flags).filter(([, flag]) => flag.isUnsupported);
  if (refused.length > 0)
    parts.push(`Not supported yet:\n${wrap(refused.map(([flagName]) => `--${flagName}`).sort())}`);
  return `${parts.join('\n\n')}\n`;
}

export function groupHelp(path: readonly string[], group: CommandGroup, globalFlags: FlagTable): string {
  const name = path.join(' ');
  const visible = group.children.filter((entry) => !entry.isHidden);
  const groups = visible.filter(isGroup);
  const leaves = visible.filter((entry) => !isGroup(entry));
  const width = Math.max(...visible.map((entry) => entry.name.length));
  const list = (entries: readonly { name: string; summary: string }[]) =>
    entries.map((entry) => `  ${entry.name.padEnd(width)}  ${entry.summary}`).join('\n');
  const parts = [`Usage:  ${name}${path.length === 1 ? ' [OPTIONS]' : ''} COMMAND`, group.summary];
  if (groups.length > 0) parts.push(`Management Commands:\n${list(groups)}`);
  if (leaves.length > 0) parts.push(`Commands:\n${list(leaves)}`);
  if (path.length === 1) parts.push(`Global Options:\n${flagHelp(globalFlags)}`);
  parts.push(`Run '${name} COMMAND --help' for more information on a command.`);
  return `${parts.join('\n\n')}\n`;
}

function flagHelp(flags: FlagTable): string {
  const lines = Object.entries(flags)
    .filter(([, flag]) => !flag.isUnsupported)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, flag]) => ({
      left: `${flag.shorthand === undefined ? '    ' : `-${flag.shorthand}, `}--${name}${flag.type === '' ? '' : ` ${flag.type}`}`,
      right: flag.help + (flag.defaultText === undefined ? '' : ` (default ${flag.defaultText})`),
    }));
  const width = Math.max(0, ...lines.map(({ left }) => left.length));
  return lines.map(({ left, right }) => `  ${left.padEnd(width)}   ${right}`).join('\n');
}

const LINE_WIDTH = 78;

function wrap(words: readonly string[]): string {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 2 <= LINE_WIDTH)
      lines[lines.length - 1] = `${last}, ${word}`;
    else lines.push(`  ${word}`);
  }
  return lines.join(',\n');
}
