// The layers of an image on their way, as Docker shows them.

import type { ImageProgress } from '../../proto/generated/node.ts';
import type { Io } from '../io.ts';
import { formatDecimalSize } from './human.ts';

/** A line per layer: redrawn on a terminal, elsewhere one for each new status. */
export class LayerLines {
  readonly #io: Io;
  readonly #lines = new Map<string, string>();
  readonly #statuses = new Map<string, string>();

  constructor(io: Io) {
    this.#io = io;
  }

  async show({ id, status, currentBytes, totalBytes }: ImageProgress): Promise<void> {
    const name = id.replace(/^sha256:/, '').slice(0, 12);
    const amount =
      totalBytes > 0 && currentBytes < totalBytes
        ? ` ${formatDecimalSize(currentBytes)}/${formatDecimalSize(totalBytes)}`
        : '';
    if (!this.#io.isTerminal) {
      if (this.#statuses.get(name) === status) return;
      this.#statuses.set(name, status);
      return this.#io.out(`${name}: ${status}\n`);
    }
    const drawn = this.#lines.size;
    this.#lines.set(name, `${name}: ${status}${amount}`);
    const up = drawn === 0 ? '' : `\x1b[${drawn}A`;
    await this.#io.out(up + [...this.#lines.values()].map((line) => `\x1b[2K${line}\n`).join(''));
  }
}
