// `top`: the processes of a task, as the machine that runs it sees them.

import { emptyReachInput, type TaskProcess } from '../../proto/generated/reach.ts';
import { defineCommand } from '../command.ts';
import { alignColumns } from '../output/tabwriter.ts';
import { exitCodeOf } from '../reach/exit-code.ts';

const DAY_MS = 86_400_000;

export const command = defineCommand({
  usage: 'TASK|SERVICE.SLOT',
  args: { min: 1, max: 1 },
  flags: {},
  completes: 'task',
  async run({ args: [task = ''], io, connection }) {
    const call = (await connection.control()).reach();
    await call.send({ ...emptyReachInput, request: { task, top: {} } });
    for await (const { processes, ended } of call) {
      if (ended !== undefined) return exitCodeOf(ended, io);
      const header = 'UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD';
      const rows = processes.map((process) => formatProcess(process, io.nowMs()));
      await io.out(`${alignColumns([header, ...rows]).join('\n')}\n`);
    }
    return 1;
  },
});

/** The columns of `ps -ef`. */
function formatProcess(
  { user, pid, parentPid, startedAtMs, tty, cpuMs, command: line }: TaskProcess,
  nowMs: number,
): string {
  const ageMs = Math.max(1, nowMs - startedAtMs);
  const usage = Math.min(99, Math.trunc((cpuMs * 100) / ageMs));
  const started = new Date(startedAtMs);
  const two = (part: number) => String(part).padStart(2, '0');
  const startedText =
    ageMs < DAY_MS
      ? `${two(started.getHours())}:${two(started.getMinutes())}`
      : `${started.toDateString().slice(4, 7)}${two(started.getDate())}`;
  const seconds = Math.trunc(cpuMs / 1_000);
  const time = [Math.trunc(seconds / 3_600), Math.trunc(seconds / 60) % 60, seconds % 60].map(two).join(':');
  return [user, pid, parentPid, usage, startedText, tty, time, line].join('\t');
}
