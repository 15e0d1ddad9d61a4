// `service logs` and `task logs`: the lines of a service's tasks, or of one task, each behind the name of who wrote it.

import { hasCode, SwarmError } from '../../core/errors.ts';
import type { Service, Task } from '../../core/generated/objects.ts';
import type { LogLine } from '../../proto/generated/dispatcher.ts';
import { defineCommand } from '../command.ts';
import type { Connection, Control } from '../connection.ts';
import { type FlagValues, switchFlag, valueFlag } from '../flags/flag.ts';
import { parseMoment } from '../flags/moment.ts';
import { parseInteger } from '../flags/units.ts';
import type { Io } from '../io.ts';
import { shortId } from '../output/human.ts';
import { findTask } from '../tasks/find-task.ts';
import { TaskNames } from '../tasks/task-list.ts';
import { logMessages } from './log-messages.ts';

const ALL_LINES = -1;

const flagTable = {
  details: switchFlag('Show extra details provided to logs'),
  follow: switchFlag('Follow log output', { shorthand: 'f' }),
  'no-resolve': switchFlag('Do not map IDs to Names in output'),
  'no-task-ids': switchFlag('Do not include task IDs in output'),
  'no-trunc': switchFlag('Do not truncate output'),
  raw: switchFlag('Do not neatly format logs'),
  since: valueFlag(
    'string',
    parseMoment,
    'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
  ),
  tail: valueFlag('string', parseTail, 'Number of lines to show from the end of the logs', {
    shorthand: 'n',
    defaultText: 'all',
  }),
  timestamps: switchFlag('Show timestamps', { shorthand: 't' }),
  until: valueFlag(
    'string',
    parseMoment,
    'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
  ),
};

/** For tasks alone, a name is not looked for among services. */
export function logsCommand(usage: string, kind: 'service' | 'task') {
  return defineCommand({
    usage,
    args: { min: 1, max: 1 },
    flags: flagTable,
    completes: kind,
    async run({ flags, args: [name = ''], io, connection }) {
      await showLogs(connection, await findTarget(await connection.control(), name, kind), flags, io);
      return 0;
    },
  });
}

async function showLogs(
  connection: Connection,
  target: Target,
  flags: FlagValues<typeof flagTable>,
  io: Io,
): Promise<void> {
  const control = await connection.control();
  const [{ nodes }, { services }] = await Promise.all([control.listNodes({}), control.listServices({})]);
  const names = new TaskNames(
    { nodes, services: services.map(({ service }) => service) },
    flags['no-resolve'] ?? false,
  );
  const tasks = new Map<string, Task>();
  const slotWidth = String(target.service?.spec.mode.replicated?.replicas ?? 1).length;
  const messages = logMessages(connection, io, {
    serviceIds: target.task === undefined ? [target.service.id] : [],
    taskIds: target.task === undefined ? [] : [target.task.id],
    options: {
      follow: flags.follow ?? false,
      tail: flags.tail ?? ALL_LINES,
      sinceMs: flags.since?.(io.nowMs()) ?? 0,
      untilMs: flags.until?.(io.nowMs()) ?? 0,
    },
  });
  for await (const message of messages) {
    for (const task of message.tasks) tasks.set(task.id, task);
    for (const warning of message.warnings) io.err(`warning: ${warning}\n`);
    for (const line of message.lines) {
      const task = tasks.get(line.taskId);
      const prefix = flags.raw ? '' : formatPrefix(task, line, names, { slotWidth, ...prefixOptions(flags) });
      const text = formatLine(line, prefix, {
        timestamps: flags.timestamps ?? false,
        details: flags.details ? task : undefined,
        isRaw: flags.raw ?? false,
      });
      // At the speed of who reads: nothing piles up here.
      if (line.stream === 'stderr') await io.errOut(text);
      else await io.out(text);
    }
  }
}

interface PrefixOptions {
  readonly slotWidth: number;
  readonly showsTaskIds: boolean;
  readonly isFull: boolean;
}

function prefixOptions(flags: {
  readonly 'no-task-ids': boolean | undefined;
  readonly 'no-trunc': boolean | undefined;
}): Omit<PrefixOptions, 'slotWidth'> {
  return { showsTaskIds: !flags['no-task-ids'], isFull: flags['no-trunc'] ?? false };
}

/** "web.1.4qxtyz6vjpm4@node    | " */
function formatPrefix(
  task: Task | undefined,
  line: LogLine,
  names: TaskNames,
  options: PrefixOptions,
): string {
  if (task === undefined) return `${shortId(line.taskId)}    | `;
  const id = options.showsTaskIds ? `.${options.isFull ? task.id : shortId(task.id)}` : '';
  const padding = ' '.repeat(Math.max(0, options.slotWidth - String(task.slot).length));
  return `${names.ofTask(task)}${id}@${names.ofNode(task.nodeId)}${padding}    | `;
}

interface LineOptions {
  readonly timestamps: boolean;
  readonly details: Task | undefined;
  readonly isRaw: boolean;
}

function formatLine(line: LogLine, prefix: string, { timestamps, details, isRaw }: LineOptions): Uint8Array {
  const time = timestamps ? `${line.time} ` : '';
  const facts =
    details === undefined
      ? ''
      : `${formatDetails({
          'com.docker.swarm.node.id': details.nodeId,
          'com.docker.swarm.service.id': details.serviceId,
          'com.docker.swarm.task.id': details.id,
          ...line.details,
        })} `;
  const isEnded = isRaw || line.data.at(-1) === 0x0a;
  return Buffer.concat([Buffer.from(time + prefix + facts), line.data, Buffer.from(isEnded ? '' : '\n')]);
}

/** As Docker writes them: in the order of their names, characters that separate are encoded. */
function formatDetails(details: Readonly<Record<string, string>>): string {
  return Object.entries(details)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`)
    .join(',');
}

type Target = { readonly service: Service; readonly task?: Task };

/** A service by id, name or prefix, else a task by id, prefix or SERVICE.SLOT. */
async function findTarget(control: Control, name: string, kind: 'service' | 'task'): Promise<Target> {
  const asService = async (reference: string) => (await control.getService({ service: reference })).service;
  if (kind === 'service') {
    try {
      return { service: await asService(name) };
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error;
    }
  }
  const task = (await findTask(control, name))?.task;
  if (task === undefined)
    throw new SwarmError('not-found', `no such ${kind === 'task' ? 'task' : 'task or service'}: ${name}`);
  return { service: await asService(task.serviceId), task };
}

function parseTail(text: string): number {
  if (text === 'all') return ALL_LINES;
  try {
    return parseInteger(text);
  } catch {
    throw new Error('must be a number of lines or "all"');
  }
}
