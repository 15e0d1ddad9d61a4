// `image prune`: removes images of this node that no container and no service with tasks here needs.

import { messageOf } from '../../../core/errors.ts';
import { defineCommand } from '../../command.ts';
import { requireConsent } from '../../consent.ts';
import { listFlag, switchFlag } from '../../flags/flag.ts';
import { parseMoment } from '../../flags/moment.ts';
import { type Filters, parseFilters } from '../../output/filter.ts';
import { formatDecimalSize } from '../../output/human.ts';
import { UsageError } from '../../usage-error.ts';

const WHAT = {
  dangling: 'all dangling images',
  all: 'all images without at least one container or service associated to them',
};

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    all: switchFlag('Remove all unused images, not just dangling ones', { shorthand: 'a' }),
    filter: listFlag(
      'Provide filter values (until=TIME|DURATION, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=BOOL)',
    ),
    force: switchFlag('Do not prompt for confirmation', { shorthand: 'f' }),
  },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, ['until', 'label', 'label!', 'dangling']);
    const all = flags.all ?? isFalse(filters.get('dangling')?.at(-1));
    const untilMs = parseUntil(filters, io.nowMs());
    const warning = `WARNING! This will remove ${all ? WHAT.all : WHAT.dangling}.`;
    if (!flags.force) await requireConsent(io, warning, 'image prune');
    const { untagged, deleted, reclaimedBytes } = await (await connection.node()).pruneImages({
      all,
      untilMs,
      labels: [...(filters.get('label') ?? [])],
      withoutLabels: [...(filters.get('label!') ?? [])],
    });
    const lines = [
      ...untagged.map((name) => `untagged: ${name}\n`),
      ...deleted.map((id) => `deleted: ${id}\n`),
    ];
    if (lines.length > 0) await io.out(`Deleted Images:\n${lines.join('')}\n`);
    await io.out(`Total reclaimed space: ${formatDecimalSize(reclaimedBytes)}\n`);
  },
});

/** "dangling=false" means what --all does. */
function isFalse(text: string | undefined): boolean {
  if (text === undefined || text === 'true' || text === '1') return false;
  if (text === 'false' || text === '0') return true;
  throw new UsageError(`--filter: dangling "${text}" must be true or false`);
}

/** 0: whatever their age. */
function parseUntil(filters: Filters, nowMs: number): number {
  const [text, another] = filters.get('until') ?? [];
  if (text === undefined) return 0;
  if (another !== undefined) throw new UsageError('--filter: more than one until filter specified');
  try {
    return Math.round(parseMoment(text)(nowMs));
  } catch (error) {
    throw new UsageError(`--filter: until "${text}" ${messageOf(error)}`);
  }
}
