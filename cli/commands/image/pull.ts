// `image pull`: brings an image to this node, with Docker's lines about its layers.

import { invalidField, messageOf } from '../../../core/errors.ts';
import {
  familiarRepository,
  type ImageReference,
  parseImageReference,
} from '../../../core/image-reference.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag, textFlag, unsupportedFlags } from '../../flags/flag.ts';
import { LayerLines } from '../../output/layer-lines.ts';
import { authFor } from '../../registry/image-auth.ts';

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
    const auth = await authFor(io, name);
    const request = { reference: name, platform: flags.platform ?? '', ...auth };
    for await (const progress of node.pullImage(request)) {
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
