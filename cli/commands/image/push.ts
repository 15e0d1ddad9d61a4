// `image push`: sends an image of this node to its registry.

import { invalidField, messageOf } from '../../../core/errors.ts';
import { familiarRepository, parseImageReference } from '../../../core/image-reference.ts';
import { defineCommand } from '../../command.ts';
import { switchFlag, unsupportedFlags } from '../../flags/flag.ts';
import { platformFlag } from '../../flags/platform-flag.ts';
import { LayerLines } from '../../output/layer-lines.ts';
import { authFor } from '../../registry/image-auth.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NAME[:TAG]',
  args: { min: 1, max: 1 },
  flags: {
    'all-tags': switchFlag('Push all tags of an image to the repository', { shorthand: 'a' }),
    quiet: switchFlag('Suppress verbose output', { shorthand: 'q' }),
    platform: platformFlag('Push a platform-specific manifest'),
    ...unsupportedFlags(['disable-content-trust']),
  },
  completes: 'image',
  async run({ flags, args: [name = ''], io, connection }) {
    const { registry, repository, tag } = parseName(name);
    const node = await connection.node();
    const full = `${registry}/${repository}`;
    const tags = flags['all-tags'] ? await tagsOf(full, (await node.listImages({})).images) : [tag];
    if (tags.length === 0)
      throw invalidField(
        'image',
        `an image does not exist locally with the tag: ${familiarRepository(registry, repository)}`,
      );
    if (!flags.quiet) {
      await io.out(`The push refers to repository [${full}]\n`);
      if (!flags['all-tags'] && !name.replace(/^.*\//, '').includes(':'))
        await io.out('Using default tag: latest\n');
    }
    const auth = await authFor(io, name);
    for (const each of tags) {
      const layers = new LayerLines(io);
      let sizeBytes = 0;
      let digest = '';
      for await (const progress of node.pushImage({
        reference: `${full}:${each}`,
        platform: flags.platform ?? '',
        ...auth,
      })) {
        if (progress.digest !== '') digest = progress.digest;
        else if (progress.id === '') sizeBytes = progress.totalBytes;
        else if (!flags.quiet) await layers.show(progress);
      }
      if (flags.quiet) await io.out(`${full}:${each}\n`);
      else await io.out(`${each}: digest: ${digest} size: ${sizeBytes}\n`);
    }
  },
});

function parseName(name: string) {
  try {
    const reference = parseImageReference(name);
    if (reference.digest !== undefined) throw new Error('a digest cannot be pushed, give the image a tag');
    return reference;
  } catch (error) {
    throw invalidField('image', messageOf(error));
  }
}

async function tagsOf(
  full: string,
  images: readonly { readonly tags: readonly string[] }[],
): Promise<string[]> {
  return images
    .flatMap(({ tags }) => tags)
    .map((tag) => parseImageReference(tag))
    .filter(({ registry, repository }) => `${registry}/${repository}` === full)
    .map(({ tag = '' }) => tag)
    .sort();
}
