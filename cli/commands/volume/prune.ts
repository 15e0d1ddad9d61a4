// `volume prune`: removes volumes of this node that no container has: those that nobody named, or all of them.

import { hasCode } from '../../../core/errors.ts';
import type { Volume } from '../../../proto/generated/node.ts';
import { defineCommand } from '../../command.ts';
import { requireConsent } from '../../consent.ts';
import { listFlag, switchFlag } from '../../flags/flag.ts';
import { parseBoolean } from '../../flags/units.ts';
import { type Filters, lacksLabels, matchesLabels, parseFilters } from '../../output/filter.ts';
import { UsageError } from '../../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: {
    all: switchFlag('Remove all unused volumes, not just anonymous ones', { shorthand: 'a' }),
    filter: listFlag('Provide filter values (label=KEY[=VALUE], label!=KEY[=VALUE], all=true)'),
    force: switchFlag('Do not prompt for confirmation', { shorthand: 'f' }),
  },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, ['all', 'label', 'label!']);
    const isAll = (flags.all ?? false) || (filters.get('all') ?? []).some(parseAll);
    const which = isAll ? 'all' : 'anonymous';
    const question = `WARNING! This will remove ${which} local volumes not used by at least one container.`;
    if (!flags.force) await requireConsent(io, question, 'volume prune');
    const node = await connection.node();
    const { volumes } = await node.listVolumes({});
    const removed: string[] = [];
    for (const volume of volumes.filter((candidate) => isToGo(candidate, filters, isAll))) {
      try {
        await node.removeVolume({ name: volume.name });
        removed.push(volume.name);
      } catch (error) {
        // Somebody was quicker: it is in use now, or gone.
        if (!hasCode(error, 'failed-precondition') && !hasCode(error, 'not-found')) throw error;
      }
    }
    if (removed.length > 0) await io.out(`Deleted Volumes:\n${removed.join('\n')}\n\n`);
  },
});

function parseAll(text: string): boolean {
  try {
    return parseBoolean(text);
  } catch {
    throw new UsageError(`--filter: all "${text}" must be true or false`);
  }
}

function isToGo({ anonymous, labels, usedBy }: Volume, filters: Filters, isAll: boolean): boolean {
  return (
    usedBy.length === 0 &&
    (isAll || anonymous) &&
    matchesLabels(filters, 'label', labels) &&
    lacksLabels(filters, 'label!', labels)
  );
}
