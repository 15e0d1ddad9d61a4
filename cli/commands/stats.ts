// `stats`: what tasks use, all of the swarm or those that are named, once or again every second.

import { messageOf } from '../../core/errors.ts';
import type { Task } from '../../core/generated/objects.ts';
import { emptyReachInput, type TaskStats } from '../../proto/generated/reach.ts';
import { defineCommand } from '../command.ts';
import type { Control } from '../connection.ts';
import { formatFlag, noTruncFlag } from '../flags/common-flags.ts';
import { switchFlag } from '../flags/flag.ts';
import { formatList, type Row } from '../format/list-format.ts';
import type { Io } from '../io.ts';
import { findService } from '../names.ts';
import { formatBinarySize, formatDecimalSize, shortId } from '../output/human.ts';
import { exitCodeOf } from '../reach/exit-code.ts';
import { readTasks, TaskNames } from '../tasks/task-list.ts';

const PERIOD_MS = 1_000;
const TITLES = {
  ID: 'TASK ID',
  Name: 'NAME',
  Node: 'NODE',
  CPUPerc: 'CPU %',
  MemUsage: 'MEM USAGE / LIMIT',
  MemPerc: 'MEM %',
  NetIO: 'NET I/O',
  BlockIO: 'BLOCK I/O',
  PIDs: 'PIDS',
};
const LAYOUT =
  '{{.ID}}\t{{.Name}}\t{{.Node}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}';
const CLEAR_SCREEN = '\x1b[2J\x1b[H';

export const command = defineCommand({
  usage: '[OPTIONS] [TASK|SERVICE...]',
  args: { min: 0, max: Number.POSITIVE_INFINITY },
  flags: {
    format: formatFlag,
    'no-stream': switchFlag('Disable streaming stats and only pull the first result'),
    'no-trunc': noTruncFlag,
  },
  completes: 'service',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    const [{ nodes }, { services }, { tasks }] = await Promise.all([
      control.listNodes({}),
      control.listServices({}),
      readTasks(control, {}),
    ]);
    const known = services.map(({ service }) => service);
    const names = new TaskNames({ nodes, services: known }, false);
    const running = tasks.filter(({ status }) => status.state === 'running');
    const chosen = args.length === 0 ? running : args.flatMap((name) => select(running, known, names, name));
    const figures = new Figures([...new Set(chosen)].sort(names.compare));
    const stopped = new AbortController();
    const following = [...figures.byNode()].map(([nodeId, group]) =>
      follow(control, group, figures, stopped.signal).catch((error) => {
        if (!stopped.signal.aborted) io.err(`warning: node ${names.ofNode(nodeId)}: ${messageOf(error)}\n`);
      }),
    );
    const over = Promise.all(following).then(() => stopped.abort());
    const show = (rows: readonly Row[]) =>
      formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format });
    const rows = () => figures.rows(names, flags['no-trunc'] ?? false);
    if (flags['no-stream']) {
      await Promise.race([figures.whenComplete(), over]);
      await io.out(show(rows()));
    } else await showLive(io, () => show(rows()), stopped.signal);
    stopped.abort();
    return 0;
  },
});

/** Until interrupted, or nothing is left to follow. */
async function showLive(io: Io, text: () => string, signal: AbortSignal): Promise<void> {
  const interrupted = io.catchInterrupt();
  while (!interrupted.aborted && !signal.aborted) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, PERIOD_MS);
      const now = () => {
        clearTimeout(timer);
        resolve();
      };
      for (const end of [interrupted, signal]) end.addEventListener('abort', now, { once: true });
    });
    if (!interrupted.aborted) await io.out(`${io.isTerminal ? CLEAR_SCREEN : ''}${text()}`);
  }
}

function select(
  running: readonly Task[],
  services: Parameters<typeof findService>[0],
  names: TaskNames,
  name: string,
): readonly Task[] {
  const exact = running.filter(
    (task) => names.ofTask(task) === name || (name.length > 3 && task.id.startsWith(name)),
  );
  if (exact.length > 0) return exact;
  const { id } = findService(services, name);
  return running.filter(({ serviceId }) => serviceId === id);
}

/** One stream for all tasks of a node. */
async function follow(
  control: Control,
  tasks: readonly Task[],
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  const call = control.reach({ signal });
  const stats = { taskIds: tasks.map(({ id }) => id), periodMs: PERIOD_MS };
  await call.send({ ...emptyReachInput, request: { task: tasks[0]?.id ?? '', stats } });
  for await (const output of call) {
    if (output.ended !== undefined) return void exitCodeOf(output.ended, { err: () => {} });
    figures.note(tasks, output.stats);
  }
}

class Figures {
  readonly #tasks: readonly Task[];
  readonly #latest = new Map<string, { readonly now: TaskStats; readonly before: TaskStats | undefined }>();
  readonly #rounds = new Map<string, number>();
  readonly #complete = Promise.withResolvers<void>();

  constructor(tasks: readonly Task[]) {
    this.#tasks = tasks;
  }

  byNode(): ReadonlyMap<string, readonly Task[]> {
    return Map.groupBy(this.#tasks, ({ nodeId }) => nodeId);
  }

  /** Resolves when every node has sent what a rate needs. */
  whenComplete(): Promise<void> {
    return this.#complete.promise;
  }

  note(asked: readonly Task[], stats: readonly TaskStats[]): void {
    for (const { id } of asked) if (!stats.some(({ taskId }) => taskId === id)) this.#latest.delete(id);
    for (const now of stats) this.#latest.set(now.taskId, { now, before: this.#latest.get(now.taskId)?.now });
    const nodeId = asked[0]?.nodeId ?? '';
    this.#rounds.set(nodeId, (this.#rounds.get(nodeId) ?? 0) + 1);
    const nodes = this.byNode();
    if ([...nodes.keys()].every((id) => (this.#rounds.get(id) ?? 0) >= 2)) this.#complete.resolve();
  }

  rows(names: TaskNames, isFull: boolean): Row[] {
    return this.#tasks.flatMap((task) => {
      const known = this.#latest.get(task.id);
      if (known === undefined) return [];
      const { now, before } = known;
      const id = isFull ? task.id : shortId(task.id);
      return [
        { ID: id, Name: names.ofTask(task), Node: names.ofNode(task.nodeId), ...formatStats(now, before) },
      ];
    });
  }
}

/** Docker's figures: 100 % is one CPU. */
function formatStats(now: TaskStats, before: TaskStats | undefined): Row {
  const elapsedMs = now.timeMs - (before?.timeMs ?? now.timeMs);
  const cpu = before === undefined || elapsedMs <= 0 ? 0 : (now.cpuNanos - before.cpuNanos) / 1e4 / elapsedMs;
  const memory = now.memoryLimitBytes > 0 ? (now.memoryBytes / now.memoryLimitBytes) * 100 : 0;
  return {
    CPUPerc: `${cpu.toFixed(2)}%`,
    MemUsage: `${formatBinarySize(now.memoryBytes)} / ${formatBinarySize(now.memoryLimitBytes)}`,
    MemPerc: `${memory.toFixed(2)}%`,
    NetIO: `${formatDecimalSize(now.receivedBytes)} / ${formatDecimalSize(now.sentBytes)}`,
    BlockIO: `${formatDecimalSize(now.readBytes)} / ${formatDecimalSize(now.writtenBytes)}`,
    PIDs: now.pids,
  };
}
