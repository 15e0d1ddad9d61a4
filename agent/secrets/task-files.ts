// Where a task's secrets and configs become files. Contents are in memory only, from here on to the container.

/** A file as its container is to see it. */
export interface TaskFile {
  readonly data: Uint8Array;
  readonly uid: number;
  readonly gid: number;
  /** Permission bits. */
  readonly mode: number;
}

/** Files are known by their position among those of the task. */
export interface TaskFiles {
  /** Makes the files of a task, in place of what is left of earlier ones; returns where each is. */
  write(taskId: string, files: readonly TaskFile[]): string[];
  /** What the container sees; undefined when there is no such file. */
  read(taskId: string, position: number): Uint8Array | undefined;
  /** From one moment to the next, whoever opens the file gets the new one, whole. */
  replace(taskId: string, position: number, file: TaskFile): void;
  /** Succeeds when there is nothing. */
  remove(taskId: string): void;
  /** Tasks with files. */
  list(): string[];
}
