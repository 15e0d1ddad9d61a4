// The world as commands see it; `bin/tsswarm.ts` builds the real one, tests their own.

export interface Io {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly workdir: string;
  readonly stdin: AsyncIterable<Uint8Array>;
  /** A line from the keyboard that the terminal does not show; undefined when standard input is no terminal. */
  readSecret(prompt: string): Promise<string | undefined>;
  /** Standard input as a terminal; undefined when it is none. */
  readonly keyboard: Keyboard | undefined;
  /** Standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Width of the terminal. */
  readonly columns: number;
  readonly rows: number;
  /** The terminal shows more than ASCII. */
  readonly isUtf8: boolean;
  /** Resolves when the reader has room for more. */
  out(data: string | Uint8Array): Promise<void>;
  err(data: string | Uint8Array): void;
  /** To stderr at the speed of its reader. */
  errOut(data: string | Uint8Array): Promise<void>;
  nowMs(): number;
  /** From now on an interrupt aborts this signal instead of ending the process. */
  catchInterrupt(): AbortSignal;
  /** Hears of signals by name instead of ending by them, until the returned function is called. */
  onSignal(listener: (name: string) => void): () => void;
  /** Hears that the terminal has another size, until the returned function is called. */
  onResize(listener: () => void): () => void;
}

export interface Keyboard {
  /** Each key arrives at once and is not shown, ^C is a key like any other; or lines again. */
  setRaw(isRaw: boolean): void;
}
