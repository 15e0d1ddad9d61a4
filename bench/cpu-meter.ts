// Processor time of a process and all that it starts, by a cgroup of its own: of version 1 (cpuacct) or 2.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const V1 = '/sys/fs/cgroup/cpuacct';
const V2 = '/sys/fs/cgroup';
const MICROS_PER_NANO = 1e-3;

export class CpuMeter implements Disposable {
  /** Of the cgroup. */
  readonly directory: string;
  readonly #isV1 = existsSync(V1);

  /** Containers leave it for cgroups of their own. */
  constructor(name: string) {
    this.directory = path.join(this.#isV1 ? V1 : V2, `tsswarm-bench-${name}-${process.pid}`);
    mkdirSync(this.directory);
  }

  /** With what it starts from now on. */
  watch(pid: number): void {
    writeFileSync(path.join(this.directory, 'cgroup.procs'), String(pid));
  }

  /** Microseconds since the beginning. */
  get micros(): number {
    const read = (file: string) => readFileSync(path.join(this.directory, file), 'utf8');
    if (this.#isV1) return Number(read('cpuacct.usage')) * MICROS_PER_NANO;
    return Number(/^usage_usec (\d+)$/m.exec(read('cpu.stat'))?.[1]);
  }

  /** All of its processes have ended. */
  [Symbol.dispose](): void {
    rmdirSync(this.directory);
  }
}
