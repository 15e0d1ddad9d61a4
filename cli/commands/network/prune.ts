// `network prune`: removes what nobody uses.

import { hasCode, messageOf } from '../../../core/errors.ts';
import type { NetworkSummary } from '../../../proto/generated/control.ts';
import { defineCommand } from '../../command.ts';
import { requireConsent } from '../../consent.ts';
import { listFlag, switchFlag } from '../../flags/flag.ts';
import { parseMoment } from '../../flags/moment.ts';
import { type Filters, lacksLabels, matchesLabels, parseFilters } from '../../output/filter.ts';
import { UsageError } from '../../usage-error.ts';

const QUESTION = 'WARNING! This will remove all networks not used by at least one service.';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    filter: listFlag('Provide filter values (label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME|DURATION)'),
    force: switchFlag('Do not prompt for confirmation', { shorthand: 'f' }),
  },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, ['label', 'label!', 'until']);
    const untilMs = parseUntil(filters, io.nowMs());
    if (!flags.force) await requireConsent(io, QUESTION, 'network prune');
    const control = await connection.control();
    const { networks } = await control.listNetworks({});
    const removed: string[] = [];
    for (const summary of networks.filter((candidate) => isToGo(candidate, filters, untilMs))) {
      try {
        await control.removeNetwork({ network: summary.network.id });
        removed.push(summary.network.spec.name);
      } catch (error) {
        // Somebody was quicker: it is in use now, or gone.
        if (!hasCode(error, 'failed-precondition') && !hasCode(error, 'not-found')) throw error;
      }
    }
    if (removed.length > 0) await io.out(`Deleted Networks:\n${removed.join('\n')}\n\n`);
  },
});

/** The routing mesh's stays: ports that are published later need it. */
function isToGo(
  { network: { spec, meta }, use }: NetworkSummary,
  filters: Filters,
  untilMs: number,
): boolean {
  return (
    !use.inUse &&
    !spec.ingress &&
    meta.createdAtMs < untilMs &&
    matchesLabels(filters, 'label', spec.labels) &&
    lacksLabels(filters, 'label!', spec.labels)
  );
}

function parseUntil(filters: Filters, nowMs: number): number {
  const [text, another] = filters.get('until') ?? [];
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (another !== undefined) throw new UsageError('--filter: more than one until filter specified');
  try {
    return parseMoment(text)(nowMs);
  } catch (error) {
    throw new UsageError(`--filter: until "${text}" ${messageOf(error)}`);
  }
}
