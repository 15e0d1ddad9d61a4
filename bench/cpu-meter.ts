// Processor time of a process and all that it starts, by a cgroup of its own, of version 1 (cpuacct) or 2: containers, which
// leave for cgroups of their own, are counted by the one above those.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const V1 = '/sys/fs/cgroup/cpuacct';
const V2 = '/sys/fs/cgroup';
const MICROS_PER_NANO = 1e-3;

const HIERARCHY = existsSync(V1) ? V1 : V2;

export class CpuMeter implements Disposable {
  /** Of the cgroup. */
  readonly directory: string;
  readonly #containers: string;

  /** `containers` is the cgroup above those of the containers: "tsswarm/engine". */
  constructor(name: string, containers: string) {
    this.directory = path.join(HIERARCHY, `tsswarm-bench-${name}-${process.pid}`);
    this.#containers = path.join(HIERARCHY, containers);
    mkdirSync(this.directory);
    mkdirSync(this.#containers, { recursive: true });
  }

  /** With what it starts from now on. */
  watch(pid: number): void {
    writeFileSync(path.join(this.directory, 'cgroup.procs'), String(pid));
  }

  /** Microseconds since the beginning. */
  get micros(): number {
    return usageMicros(this.directory) + usageMicros(this.#containers);
  }

  /** All of its processes have ended. */
  [Symbol.dispose](): void {
    rmdirSync(this.directory);
  }
}

function usageMicros(directory: string): number {
  const read = (file: string) => readFileSync(path.join(directory, file), 'utf8');
  if (HIERARCHY === V1) return Number(read('cpuacct.usage')) * MICROS_PER_NANO;
  return Number(/^usage_usec (\d+)$/m.exec(read('cpu.stat'))?.[1]);
}
