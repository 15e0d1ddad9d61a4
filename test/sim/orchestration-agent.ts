// A machine of the simulated orchestration that runs tasks: the real session over a simulated network, with a simulated
// worker (sim-tasks.ts).

import { Redescription, runSessions } from '../../agent/session/session.ts';
import { emptyNodeDescription, type NodeDescription } from '../../core/generated/objects.ts';
import type { Chance } from '../support/faults.ts';
import { type SimNetwork, SimProcess } from './sim-calls.ts';
import { type Luck, type SimContainer, SimMachineState, SimWorker } from './sim-tasks.ts';

export interface SimAgentOptions {
  readonly name: string;
  readonly nodeId: string;
  readonly network: SimNetwork;
  readonly chance: Chance;
  readonly luck: Luck;
  readonly managers: readonly string[];
  readonly cpus: number;
  readonly onStarted: (agent: SimAgent, container: SimContainer) => void;
}

export class SimAgent {
  readonly options: SimAgentOptions;
  readonly state: SimMachineState;
  process: SimProcess | undefined;
  skewMs = 0;

  constructor(options: SimAgentOptions) {
    this.options = options;
    const { network, chance, luck, onStarted } = options;
    this.state = new SimMachineState(network.time, chance, luck, (container) => onStarted(this, container));
  }

  start(): void {
    if (this.process !== undefined) return;
    const { name, nodeId, network, chance, luck, managers } = this.options;
    const process = new SimProcess(name, network.time, () => this.skewMs);
    this.process = process;
    const caller = { role: 'worker', nodeId } as const;
    const worker = new SimWorker(this.state, process, chance, luck);
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
        worker: worker.asWorker(),
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
    const { name, cpus } = this.options;
    return {
      ...emptyNodeDescription,
      hostname: name,
      platform: { os: 'linux', architecture: 'x86_64' },
      resources: { cpuNanos: cpus * 1e9, memoryBytes: 8 * 2 ** 30 },
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
