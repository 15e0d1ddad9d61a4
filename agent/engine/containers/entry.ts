// One container as this process knows it. Only the lifecycle changes it.
//
//   created ──start──▶ running ──exit──▶ exited

import { SwarmError } from '../../../core/errors.ts';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import type { ContainerExit, ContainerState } from '../engine.ts';
import { Limiter } from '../limiter.ts';
import type { ExecProcess } from './exec-process.ts';
import type { ContainerDirectory, ContainerRecordFile } from './record.ts';

export class ContainerEntry {
  readonly id: string;
  readonly directory: ContainerDirectory;
  readonly record: ContainerRecordFile;
  /** Start and removal take turns. */
  readonly turns = new Limiter(1);
  state: ContainerState = { state: 'created' };
  /** Mounts of the container's snapshot, while they are known from its creation. */
  mounts: readonly SnapshotMount[] | undefined;
  /** The process of its specification, once a command has been run beside it. */
  process: ExecProcess | undefined;
  /** An exit that arrives while the start is still under way. */
  earlyExit: ContainerExit | undefined;
  isStarting = false;
  isOutOfMemory = false;
  /** The end's aftermath: the task is deleted and the log complete. */
  settled: Promise<void> | undefined;
  readonly #exited = Promise.withResolvers<ContainerExit>();

  constructor(directory: ContainerDirectory, record: ContainerRecordFile) {
    this.id = record.id;
    this.directory = directory;
    this.record = record;
  }

  get whenExited(): Promise<ContainerExit> {
    return this.#exited.promise;
  }

  markExited(exit: ContainerExit): void {
    this.state = { state: 'exited', exit };
    this.#exited.resolve(exit);
  }
}

/** Throws `failed-precondition` when it does not run. */
export function runningPid({ id, state }: ContainerEntry): number {
  if (state.state === 'running') return state.pid;
  throw new SwarmError('failed-precondition', `container ${id} is not running`);
}
