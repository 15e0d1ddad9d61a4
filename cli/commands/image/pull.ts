// `image pull`: brings an image to this node, with Docker's lines about its layers.

import { invalidField, messageOf } from '../../../core/errors.ts';
import {
  familiarRepository,
  type ImageReference,
  parseImageReference,
} from '../../../core/image-reference.ts';
import type { ImageProgress } from '../../../proto/generated/node.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag, textFlag, unsupportedFlags } from '../../flags/flag.ts';
import type { Io } from '../../io.ts';
import { formatDecimalSize } from '../../output/human.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NAME[:TAG|@DIGEST]',
  args: { min: 1, max: 1 },
  flags: {
    platform: textFlag('Platform if the registry has several (os/arch[/variant])', {
      defaultText: "this node's",
    }),
    quiet: switchFlag('Suppress verbose output', { shorthand: 'q' }),
    ...unsupportedFlags(['all-tags', 'disable-content-trust'], { 'all-tags': 'a' }),
  },
  completes: 'image',
  async run({ flags, args: [name = ''], io, connection }) {
    const reference = parseName(name);
    const node = await connection.node();
    const layers = new LayerLines(io);
    if (!flags.quiet) {
      if (reference.tag !== undefined && !name.includes(':')) await io.out('Using default tag: latest\n');
      const { registry, repository, tag, digest } = reference;
      const from = registry === 'docker.io' ? repository : familiarRepository(registry, repository);
      await io.out(`${tag ?? digest}: Pulling from ${from}\n`);
    }
    let digest = '';
    for await (const progress of node.pullImage({ reference: name, platform: flags.platform ?? '' })) {
      if (progress.digest !== '') digest = progress.digest;
      else if (!flags.quiet && progress.id !== '') await layers.show(progress);
    }
    if (!flags.quiet)
      await io.out(`Digest: ${digest}\nStatus: Image is up to date for ${reference.familiar}\n`);
    await io.out(`${reference.normalized}\n`);
  },
});

function parseName(name: string): ImageReference {
  try {
    return parseImageReference(name);
  } catch (error) {
    throw invalidField('image', messageOf(error));
  }
}

/** A line per layer: redrawn on a terminal, elsewhere one for each new status. */
class LayerLines {
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
