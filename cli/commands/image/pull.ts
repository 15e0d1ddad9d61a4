// `image pull`: brings an image to this node, with Docker's lines about its layers.

import { invalidField, messageOf } from '../../../core/errors.ts';
import type { RegistryAuth } from '../../../core/generated/objects.ts';
import {
  familiarRepository,
  type ImageReference,
  parseImageReference,
} from '../../../core/image-reference.ts';
import { defineCommand } from '../../command.ts';
import type { NodeControl } from '../../connection.ts';
import { switchFlag, textFlag, unsupportedFlags } from '../../flags/flag.ts';
import type { Io } from '../../io.ts';
import { LayerLines } from '../../output/layer-lines.ts';
import { authFor } from '../../registry/image-auth.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NAME[:TAG|@DIGEST]',
  args: { min: 1, max: 1 },
  flags: {
    platform: textFlag('Platform if the registry has several (os/arch[/variant])', {
      defaultText: "this node's",
    }),
    quiet: switchFlag('Suppress verbose output', { shorthand: 'q' }),
    'all-tags': switchFlag('Download all tagged images in the repository', { shorthand: 'a' }),
    ...unsupportedFlags(['disable-content-trust']),
  },
  completes: 'image',
  async run({ flags, args: [name = ''], io, connection }) {
    const reference = parseName(name);
    const isNamedOnly = reference.digest === undefined && !hasTag(name);
    if (flags['all-tags'] && !isNamedOnly) throw new UsageError("tag can't be used with --all-tags/-a");
    const node = await connection.node();
    const auth = await authFor(io, name);
    const { registry, repository } = reference;
    const tags = flags['all-tags'] ? (await node.listTags({ reference: name, ...auth })).tags : undefined;
    if (tags === undefined && isNamedOnly && !flags.quiet) await io.out('Using default tag: latest\n');
    const names = tags?.map((tag) => `${registry}/${repository}:${tag}`) ?? [name];
    for (const each of names)
      await pullOne(
        parseName(each),
        { ...auth, platform: flags.platform ?? '' },
        { node, io, isQuiet: flags.quiet },
      );
  },
});

interface Surroundings {
  readonly node: NodeControl;
  readonly io: Io;
  readonly isQuiet: boolean | undefined;
}

async function pullOne(
  { registry, repository, tag, digest: wanted, familiar, normalized }: ImageReference,
  options: { readonly platform: string; readonly auth?: RegistryAuth },
  { node, io, isQuiet }: Surroundings,
): Promise<void> {
  const layers = new LayerLines(io);
  if (!isQuiet) {
    const from = registry === 'docker.io' ? repository : familiarRepository(registry, repository);
    await io.out(`${tag ?? wanted}: Pulling from ${from}\n`);
  }
  let digest = '';
  for await (const progress of node.pullImage({ reference: normalized, ...options })) {
    if (progress.digest !== '') digest = progress.digest;
    else if (!isQuiet && progress.id !== '') await layers.show(progress);
  }
  if (!isQuiet) await io.out(`Digest: ${digest}\nStatus: Image is up to date for ${familiar}\n`);
  await io.out(`${normalized}\n`);
}

/** A colon behind the last slash; one before is of the registry's port. */
function hasTag(name: string): boolean {
  return name.slice(name.lastIndexOf('/') + 1).includes(':');
}

function parseName(name: string): ImageReference {
  try {
    return parseImageReference(name);
  } catch (error) {
    throw invalidField('image', messageOf(error));
  }
}
