// The world as commands see it; `bin/tsswarm.ts` builds the real one, tests their own.

export interface Io {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly workdir: string;
  readonly stdin: AsyncIterable<Uint8Array>;
  /** A line from the keyboard that the terminal does not show; undefined when standard input is no terminal. */
  readSecret(prompt: string): Promise<string | undefined>;
  /** Standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Width of the terminal. */
  readonly columns: number;
  /** The terminal shows more than ASCII. */
  readonly isUtf8: boolean;
  /** Resolves when the reader has room for more. */
  out(data: string | Uint8Array): Promise<void>;
  err(data: string | Uint8Array): void;
  nowMs(): number;
  /** From now on an interrupt aborts this signal instead of ending the process. */
  catchInterrupt(): AbortSignal;
}
