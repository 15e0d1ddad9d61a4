// What a command is. Each stands in its own file and is loaded only when it is called for.

import type { Connection } from './connection.ts';
import type { FlagTable, FlagValues } from './flags/flag.ts';
import type { Io } from './io.ts';

export interface Call<F extends FlagTable = FlagTable> {
  readonly flags: FlagValues<F>;
  /** Names of the flags that were given. */
  readonly given: ReadonlySet<string>;
  readonly args: readonly string[];
  readonly io: Io;
  readonly connection: Connection;
}

/** What the words of a command name, for completion. */
export type CompletionKind =
  | 'service'
  | 'task'
  | 'network'
  | 'secret'
  | 'config'
  | 'node'
  | 'image'
  | 'volume'
  | 'file'
  | readonly string[];

export interface Command<F extends FlagTable = FlagTable> {
  /** The words behind the command's name in its usage line. */
  readonly usage: string;
  readonly args: { readonly min: number; readonly max: number };
  readonly flags: F;
  /** False: flags end at the first word. */
  readonly isInterspersed?: boolean;
  readonly completes?: CompletionKind;
  /** The exit status; nothing is success. */
  run(call: Call<F>): Promise<number | undefined>;
}

export function defineCommand<F extends FlagTable>(command: Command<F>): Command<F> {
  return command;
}
