// Whom to ask for names of the world outside, for tasks that have name servers of their own. They go with what else the
// kernel knows of a task: files in memory, which the next process finds.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

export class TaskNameServers {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  set(taskId: string, servers: readonly string[]): void {
    if (servers.length > 0) writeFileSync(join(this.#directory, taskId), servers.join('\n'));
  }

  /** Of the task whose namespace it is; undefined: those of the node. */
  of(namespacePath: string): readonly string[] | undefined {
    const file = join(this.#directory, basename(namespacePath));
    return existsSync(file) ? readFileSync(file, 'utf8').split('\n') : undefined;
  }

  forget(taskId: string): void {
    rmSync(join(this.#directory, taskId), { force: true });
  }
}
