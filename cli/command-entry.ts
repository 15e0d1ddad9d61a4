// What the tree of commands is made of.

import type { Command } from './command.ts';

export interface CommandLeaf {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly summary: string;
  readonly isHidden?: true;
  readonly load: () => Promise<{ readonly command: Command }>;
}

export interface CommandGroup {
  readonly name: string;
  readonly summary: string;
  readonly isHidden?: true;
  readonly children: readonly CommandEntry[];
  /** Words that Swarm has here and this version does not. */
  readonly unsupported: readonly string[];
}

export type CommandEntry = CommandLeaf | CommandGroup;

export function isGroup(entry: CommandEntry): entry is CommandGroup {
  return 'children' in entry;
}

export function findChild(group: CommandGroup, word: string): CommandEntry | undefined {
  return group.children.find(
    (entry) => entry.name === word || (!isGroup(entry) && entry.aliases?.includes(word)),
  );
}
