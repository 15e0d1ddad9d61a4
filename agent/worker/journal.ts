// What the worker must know after a crash and containerd does not hold: which tasks it was given, and how those ended
// whose containers are gone. One small file a task; each state it must remember is a line, and the last one counts.

import { appendFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Revision, Task, TaskStatus } from '../../core/generated/objects.ts';
import { workerLog } from '../log.ts';

export interface JournalEntry {
  readonly task: Task;
  readonly revision: Revision;
  readonly status: TaskStatus;
  /** Id of the revision whose limits the container has, where those of `revision` are still to be applied. */
  readonly limitsOf?: string | undefined;
}

export class Journal {
  readonly #directory: string;
  /** Writes of one task follow each other. */
  readonly #writes = new Map<string, Promise<void>>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** All entries; a file that holds none is reported and removed: its container goes with it. */
  async load(): Promise<JournalEntry[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const entries: JournalEntry[] = [];
    for (const name of await readdir(this.#directory)) {
      const file = path.join(this.#directory, name);
      if (!name.endsWith('.json')) {
        await rm(file, { force: true });
        continue;
      }
      try {
        entries.push(parseEntry(await readFile(file, 'utf8'), name));
      } catch (error) {
        workerLog.error(
          { file, error: messageOf(error) },
          'journal entry cannot be read; its container is removed',
        );
        await rm(file, { force: true });
      }
    }
    return entries;
  }

  save(entry: JournalEntry): Promise<void> {
    // What an interrupted write has left ends where the line begins.
    const line = `\n${JSON.stringify(entry)}`;
    return this.#enqueue(entry.task.id, (file) => appendFile(file, line, { mode: 0o600 }));
  }

  delete(taskId: string): Promise<void> {
    return this.#enqueue(taskId, (file) => rm(file, { force: true }));
  }

  #enqueue(taskId: string, write: (file: string) => Promise<void>): Promise<void> {
    const previous = this.#writes.get(taskId) ?? Promise.resolve();
    const next = previous.catch(() => {}).then(() => write(path.join(this.#directory, `${taskId}.json`)));
    this.#writes.set(taskId, next);
    const forget = () => {
      if (this.#writes.get(taskId) === next) this.#writes.delete(taskId);
    };
    next.then(forget, forget);
    return next;
  }
}

/** The last whole line. Throws unless it is an entry of the task that the file is named after. */
function parseEntry(text: string, name: string): JournalEntry {
  const entry = text
    .split('\n')
    .map(parseLine)
    .findLast((parsed) => parsed !== undefined);
  if (`${entry?.task?.id}.json` !== name) throw new SwarmError('internal', 'it holds no task of this name');
  return entry as JournalEntry;
}

function parseLine(line: string): JournalEntry | undefined {
  try {
    return (JSON.parse(line) as JournalEntry | null) ?? undefined;
  } catch {
    // A power cut or a full disk leaves files empty and lines half.
    return undefined;
  }
}
