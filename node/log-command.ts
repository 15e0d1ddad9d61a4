// `tsswarmd log verify DIR` and `tsswarmd log dump DIR`: looks at a manager's log without a manager, and changes nothing.

import { messageOf, SwarmError } from '../core/errors.ts';
import { RealDisk } from '../manager/raft-host/real-disk.ts';
import {
  type DumpLine,
  dumpLog,
  type LogReport,
  type Range,
  verifyLog,
} from '../manager/raft-host/verify-log.ts';
import { isDelete } from '../manager/store/apply-entry.ts';
import { LogEntryCodec } from '../proto/generated/log.ts';
import { type ConfigurationChange, ConfigurationChangeCodec, type Entry } from '../proto/generated/raft.ts';
import { decode } from '../proto/wire.ts';

export const LOG_USAGE = `Usage: tsswarmd log verify DIR [OPTIONS]   is the log in this directory whole, and what is in it
       tsswarmd log dump DIR [OPTIONS]     one line for each record of it, oldest first

With the manager stopped, or on a copy. DIR is manager/log under the data root. Nothing is changed. Exit code 1: damaged.

Options:
  --unlock-key          Unlock key of the cluster, when its managers are locked
  --from, --to          dump: only entries of these indexes
`;

const FLAGS = ['unlock-key', 'from', 'to'];
// Of the changes of one entry; a line shall stay one.
const CHANGES_SHOWN = 4;

/** Prints line by line. Returns the exit code: 1 when the log is damaged. */
export async function runLogCommand(
  words: readonly string[],
  flags: ReadonlyMap<string, string>,
  print: (line: string) => void,
): Promise<number> {
  const [command, directory, ...extra] = words;
  const unknown = [...flags.keys()].find((name) => !FLAGS.includes(name));
  const isKnown = command === 'verify' || command === 'dump';
  if (!isKnown || directory === undefined || extra.length > 0 || unknown !== undefined)
    throw new SwarmError('invalid-argument', `log ${words.join(' ')}: not understood`, { hint: LOG_USAGE });
  const disk = await RealDisk.reading(directory);
  const unlockKey = flags.get('unlock-key');
  if (command === 'verify') {
    const report = await verifyLog(disk, unlockKey);
    for (const line of formatReport(report)) print(line);
    return report.problems.length > 0 ? 1 : 0;
  }
  const from = indexOf(flags, 'from', 0);
  const to = indexOf(flags, 'to', Number.MAX_SAFE_INTEGER);
  const isAll = !flags.has('from') && !flags.has('to');
  await dumpLog(
    disk,
    (line) => {
      const { record } = line;
      const isWanted =
        record.kind === 'entry' ? record.entry.index >= from && record.entry.index <= to : isAll;
      if (isWanted) print(formatLine(line));
    },
    unlockKey,
  );
  return 0;
}

export function formatReport(report: LogReport): string[] {
  const { member, hardState, snapshot, entries, segments, snapshots, isTorn, problems } = report;
  const lines: string[] = [];
  if (member !== undefined) lines.push(`member ${member.memberId} of cluster ${member.clusterId}`);
  for (const { name, records, bytes } of snapshots)
    lines.push(`${name}  ${records} records, ${bytes} bytes, whole`);
  for (const { name, blocks, entries: of, terms } of segments)
    lines.push(`${name}  ${blocks} blocks, entries ${formatRange(of)}, terms ${formatRange(terms)}`);
  if (hardState !== undefined) {
    const { term, vote, commit } = hardState;
    lines.push(
      `in term ${term}, voted for ${vote === 0 ? 'nobody' : vote}, committed up to ${commit} at least`,
    );
    const since =
      snapshot === undefined ? '' : ` after the snapshot of ${snapshot.index} (term ${snapshot.term})`;
    lines.push(`entries ${formatRange(entries)}${since}`);
  }
  if (isTorn) lines.push('the end is torn: a write that was never acknowledged; the next start drops it');
  for (const { message, hint } of problems) {
    lines.push(`DAMAGED: ${message}`);
    if (hint !== undefined) lines.push(`  ${hint}`);
  }
  lines.push(problems.length === 0 ? 'the log is whole' : 'a manager does not start with this log');
  return lines;
}

export function formatLine({ segment, offset, block, record }: DumpLine): string {
  const place = `${segment}@${offset} block ${block}`;
  if (record.kind === 'mark') return `${place}  the log restarts after entry ${record.mark.index}`;
  if (record.kind === 'hard-state') {
    const { term, vote, commit } = record.hardState;
    return `${place}  hard state: term ${term}, vote ${vote}, commit ${commit}`;
  }
  const { index, term, payload } = record.entry;
  return `${place}  entry ${index} term ${term} ${payload.length} bytes: ${describeSafely(record.entry)}`;
}

/** Bytes that this version does not understand are worth a line as well. */
function describeSafely(entry: Entry): string {
  try {
    return describe(entry);
  } catch (error) {
    return `not understood: ${messageOf(error)}`;
  }
}

function describe({ kind, payload }: Entry): string {
  if (kind === 'noop') return 'a term begins';
  if (kind === 'configuration') return describeMembers(decode(ConfigurationChangeCodec, payload));
  const { changes } = decode(LogEntryCodec, payload);
  const shown = changes.slice(0, CHANGES_SHOWN).map((change) => {
    const { kind: object, id, expectedVersion } = change;
    const put = expectedVersion === 0 ? 'create' : 'update';
    const verb = isDelete(change) ? 'delete' : put;
    return `${verb} ${object} ${id}${expectedVersion === 0 ? '' : ` of version ${expectedVersion}`}`;
  });
  const more = changes.length - shown.length;
  return `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function describeMembers({ steps }: ConfigurationChange): string {
  if (steps.length === 0) return 'the joint configuration is left';
  return steps
    .map(({ kind, member }) => `${kind} ${member.id} (node ${member.nodeId}, ${member.address})`)
    .join(', ');
}

function formatRange(range: Range): string {
  if (range === undefined) return 'none';
  return range.first === range.last ? String(range.first) : `${range.first} to ${range.last}`;
}

function indexOf(flags: ReadonlyMap<string, string>, name: string, otherwise: number): number {
  const text = flags.get(name);
  if (text === undefined) return otherwise;
  if (!/^\d{1,15}$/.test(text)) throw new SwarmError('invalid-argument', `--${name}: "${text}" is no index`);
  return Number(text);
}
