// `image ls`: the images of this node.

import { messageOf } from '../../../core/errors.ts';
import type { ImageSummary } from '../../../proto/generated/node.ts';
import { defineCommand } from '../../command.ts';
import { filterFlag, formatFlag, noTruncFlag, quietFlag } from '../../flags/common-flags.ts';
import { switchFlag, unsupportedFlags } from '../../flags/flag.ts';
import { parseMoment } from '../../flags/moment.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../../output/filter.ts';
import { formatDecimalSize, formatElapsed, shortId } from '../../output/human.ts';
import { splitImageName } from '../../output/image-name.ts';
import { UsageError } from '../../usage-error.ts';

const FILTERS = ['before', 'dangling', 'label', 'reference', 'since', 'until'];
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
    const isOfTime = timeFilter(filters, images, io.nowMs());
    const rows = images
      .filter((image) => matchesImage(filters, image) && isOfTime(image))
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

/** before=IMAGE, since=IMAGE and until=TIME compare when images were made. */
function timeFilter(
  filters: Filters,
  images: readonly ImageSummary[],
  nowMs: number,
): (image: ImageSummary) => boolean {
  const momentsOf = (key: string) =>
    (filters.get(key) ?? []).map((name) => {
      const found = images.find((image) => isNamed(image, name));
      if (found === undefined) throw new UsageError(`--filter: ${key}: No such image: ${name}`);
      return found.createdAtMs;
    });
  const until = (filters.get('until') ?? []).map((text) => momentOf(text)(nowMs));
  const before = Math.min(...momentsOf('before'), ...until);
  const since = Math.max(...momentsOf('since'));
  return ({ createdAtMs }) => createdAtMs < before && createdAtMs > since;
}

function momentOf(text: string): (nowMs: number) => number {
  try {
    return parseMoment(text);
  } catch (error) {
    throw new UsageError(`--filter: until "${text}" ${messageOf(error)}`);
  }
}

/** By name, with or without its tag, or by id. */
function isNamed({ id, tags, digests }: ImageSummary, text: string): boolean {
  if (/^(sha256:)?[a-f0-9]{4,64}$/.test(text) && id.startsWith(`sha256:${text.replace(/^sha256:/, '')}`))
    return true;
  return tags.includes(text) || tags.includes(`${text}:latest`) || digests.includes(text);
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
