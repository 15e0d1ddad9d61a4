// The files of tasks, in memory: what `MemoryFiles` is without mounts.

import type { TaskFile, TaskFiles } from '../../agent/secrets/task-files.ts';
import { defined } from '../../core/assert.ts';

export class FakeFiles implements TaskFiles {
  readonly tasks = new Map<string, TaskFile[]>();
  /** May throw. */
  onReplace: (taskId: string, position: number) => void = () => {};

  write(taskId: string, files: readonly TaskFile[]): string[] {
    this.tasks.set(taskId, [...files]);
    return files.map((_, position) => `/files/${taskId}/${position}`);
  }

  read(taskId: string, position: number): Uint8Array | undefined {
    return this.tasks.get(taskId)?.[position]?.data;
  }

  replace(taskId: string, position: number, file: TaskFile): void {
    this.onReplace(taskId, position);
    const files = defined(this.tasks.get(taskId), `task ${taskId} has no files`);
    files[position] = file;
  }

  remove(taskId: string): void {
    this.tasks.delete(taskId);
  }

  list(): string[] {
    return [...this.tasks.keys()];
  }

  /** What a container reads. */
  text(taskId: string, position: number): string {
    return Buffer.from(this.read(taskId, position) ?? []).toString();
  }
}
