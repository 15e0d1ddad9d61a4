// A machine of the simulated orchestration that runs tasks: the real session over a simulated network, with a simulated
// worker (sim-tasks.ts).

import { Redescription, runSessions } from '../../agent/session/session.ts';
import {
  emptyNodeDescription,
  type GenericResource,
  type NodeDescription,
} from '../../core/generated/objects.ts';
import type { Chance } from '../support/faults.ts';
import { type SimNetwork, SimProcess } from './sim-calls.ts';
import { type Luck, type SimContainer, SimMachineState, SimWorker } from './sim-tasks.ts';

/** What a machine has; another one may come back under its name. */
export interface MachineSize {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly architecture: string;
  readonly generic: readonly GenericResource[];
}

export interface SimAgentOptions {
  readonly name: string;
  readonly nodeId: string;
  readonly network: SimNetwork;
  readonly chance: Chance;
  readonly luck: Luck;
  readonly managers: readonly string[];
  readonly size: MachineSize;
  readonly onStarted: (agent: SimAgent, container: SimContainer, all: Iterable<SimContainer>) => void;
}

export class SimAgent {
  readonly options: SimAgentOptions;
  readonly state: SimMachineState;
  process: SimProcess | undefined;
  /** Of the process, or of the last one. */
  worker: SimWorker | undefined;
  skewMs = 0;
  size: MachineSize;
  /** It has left the cluster: it never starts again. */
  isGone = false;

  constructor(options: SimAgentOptions) {
    this.options = options;
    this.size = options.size;
    const { network, chance, luck, onStarted } = options;
    this.state = new SimMachineState(network.time, chance, luck, (container) =>
      onStarted(this, container, this.state.containers.values()),
    );
  }

  start(): void {
    if (this.process !== undefined || this.isGone) return;
    const { name, nodeId, network, chance, luck, managers } = this.options;
    const process = new SimProcess(name, network.time, () => this.skewMs);
    this.process = process;
    const caller = { role: 'worker', nodeId } as const;
    this.worker = new SimWorker(this.state, process, chance, luck);
    const stopped = new AbortController();
    void runSessions(
      {
        nodeId,
        connect: () => {
          const address = managers[Math.floor(chance() * managers.length)] ?? '';
          return network.channel(
            process,
            () => network.doors.get(address),
            () => ({ identity: undefined, expected: {}, caller }),
          );
        },
        worker: this.worker.asWorker(),
        address: () => name,
        redescription: new Redescription(),
        onNews: () => {},
        describe: () => this.describe(),
        clock: process.clock,
        random: chance,
      },
      stopped.signal,
    );
  }

  describe(): NodeDescription {
    const { name } = this.options;
    const { cpus, memoryBytes, architecture, generic } = this.size;
    return {
      ...emptyNodeDescription,
      hostname: name,
      platform: { os: 'linux', architecture },
      resources: { cpuNanos: cpus * 1e9, memoryBytes },
      genericResources: generic,
    };
  }

  /** daemon: what runs goes on. power: it ends. disk: nothing is left of it. */
  crash(kind: 'daemon' | 'power' | 'disk'): void {
    this.process?.die();
    this.process = undefined;
    if (kind === 'power') this.state.losePower();
    if (kind === 'disk') this.state.loseDisk();
  }
}
