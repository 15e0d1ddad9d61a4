// `image ls`: the images of this node.

import type { ImageSummary } from '../../../proto/generated/node.ts';
import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { switchFlag, unsupportedFlags } from '../../flags/flag.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../../output/filter.ts';
import { formatDecimalSize, formatElapsed, shortId } from '../../output/human.ts';
import { splitImageName } from '../../output/image-name.ts';

const FILTERS = ['dangling', 'label', 'reference'];
const TITLES = {
  ID: 'IMAGE ID',
  Repository: 'REPOSITORY',
  Tag: 'TAG',
  Digest: 'DIGEST',
  CreatedSince: 'CREATED',
  CreatedAt: 'CREATED AT',
  Size: 'SIZE',
};

export const command = defineCommand({
  usage: '[OPTIONS] [REPOSITORY[:TAG]]',
  args: { min: 0, max: 1 },
  flags: {
    all: switchFlag('Show all images (default hides intermediate images)', { shorthand: 'a' }),
    digests: switchFlag('Show digests'),
    filter: filterFlag,
    format: formatFlag,
    'no-trunc': noTruncFlag,
    quiet: quietFlag,
    ...unsupportedFlags(['tree']),
  },
  completes: 'image',
  async run({ flags, args: [wanted], io, connection }) {
    const filters = parseFilters(flags.filter, FILTERS);
    const { images } = await (await connection.node()).listImages({});
    const rows = images
      .filter((image) => matchesImage(filters, image))
      .sort((a, b) => b.createdAtMs - a.createdAtMs)
      .flatMap((image) => imageRows(image, flags['no-trunc'] ?? false, io.nowMs()))
      .filter((row) => wanted === undefined || matchesName(row, wanted))
      .filter((row) => matchesFilter(filters, 'reference', (pattern) => matchesName(row, pattern)));
    const digest = flags.digests ? '\t{{.Digest}}' : '';
    const layout = `{{.Repository}}\t{{.Tag}}${digest}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`;
    const shown = flags.quiet ? uniqueIds(rows) : rows;
    await io.out(formatList(shown, { titles: TITLES, layout, format: flags.format, isQuiet: flags.quiet }));
  },
});

function matchesImage(filters: Filters, image: ImageSummary): boolean {
  return (
    matchesFilter(
      filters,
      'dangling',
      (value) => (image.tags.length === 0) === (value === 'true' || value === '1'),
    ) && matchesLabels(filters, 'label', image.labels)
  );
}

/** A row for each name; one without a name when there is none. */
function imageRows(image: ImageSummary, isFull: boolean, nowMs: number): Row[] {
  const id = isFull ? image.id : shortId(image.id.replace(/^sha256:/, ''));
  const names = image.tags.length > 0 ? image.tags : image.digests.length > 0 ? image.digests : ['<none>'];
  return names.map((name) => {
    const { repository, tag, digest } = splitImageName(name);
    return {
      ID: id,
      Repository: repository,
      Tag: tag,
      Digest: digest === '<none>' ? image.digest : digest,
      CreatedSince: image.createdAtMs > 0 ? `${formatElapsed(nowMs - image.createdAtMs)} ago` : 'N/A',
      CreatedAt: image.createdAtMs > 0 ? new Date(image.createdAtMs).toISOString() : 'N/A',
      Size: formatDecimalSize(image.sizeBytes),
    };
  });
}

/** "nginx" or "nginx:alpine", with "*" and "?". */
function matchesName({ Repository, Tag }: Row, pattern: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]');
  const matcher = new RegExp(`^${source}$`);
  return matcher.test(String(Repository)) || matcher.test(`${Repository}:${Tag}`);
}

function uniqueIds(rows: readonly Row[]): Row[] {
  const seen = new Set<unknown>();
  return rows.filter(({ ID }) => !seen.has(ID) && seen.add(ID));
}
