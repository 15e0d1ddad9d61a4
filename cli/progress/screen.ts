// Lines that change: on a terminal they are redrawn in place, elsewhere each change is a line of its own.

import type { Io } from '../io.ts';
import { truncate } from '../output/human.ts';

/** The lines drawn last, to be drawn over. */
export class Screen {
  readonly #io: Pick<Io, 'out' | 'isTerminal' | 'columns'>;
  #lines: readonly string[] = [];

  constructor(io: Pick<Io, 'out' | 'isTerminal' | 'columns'>) {
    this.#io = io;
  }

  async draw(lines: readonly string[]): Promise<void> {
    const shown = this.#lines;
    if (lines.join('\n') === shown.join('\n')) return;
    this.#lines = lines;
    if (!this.#io.isTerminal) {
      const changed = lines.filter((line) => !shown.includes(line));
      if (changed.length > 0) await this.#io.out(`${changed.join('\n')}\n`);
      return;
    }
    const up = shown.length === 0 ? '' : `\x1b[${shown.length}A`;
    // A line that wraps would be two to go up.
    const fitted = lines.map((line) => `\x1b[2K${truncate(line, this.#io.columns - 1)}\n`);
    await this.#io.out(`${up}${fitted.join('')}\x1b[J`);
  }

  /** Puts a last line in the place of the countdown. */
  async end(line: string): Promise<void> {
    const kept = this.#lines.filter((shown) => !shown.startsWith('verify:'));
    await this.draw(line === '' ? kept : [...kept, line]);
  }
}

export function silentScreen(): Screen {
  return new Screen({ out: async () => {}, isTerminal: false, columns: 0 });
}
