// The real Raft host of a simulated manager, on its simulated disk and clock.

import type { RaftHostOptions } from '../../manager/raft-host/host-options.ts';
import { RaftHost } from '../../manager/raft-host/raft-host.ts';
import type { Chance } from '../support/faults.ts';
import type { SimProcess } from './sim-calls.ts';
import type { SimDisk } from './sim-disk.ts';

interface Machine {
  readonly process: SimProcess;
  readonly disk: SimDisk;
  readonly clusterId: string;
  readonly chance: Chance;
  readonly randomBytes: (count: number) => Buffer;
}

type Differs = Pick<RaftHostOptions, 'self' | 'founders' | 'openNetwork' | 'snapshotInterval'> &
  Required<Pick<RaftHostOptions['log'], 'segmentBytes' | 'onFatal'>>;

export function simRaftHost(machine: Machine, { segmentBytes, onFatal, ...options }: Differs): RaftHost {
  const { process, disk, clusterId, chance, randomBytes } = machine;
  const { clock } = process;
  const defer = (callback: () => void) => clock.wake(0, callback);
  const log = { disk, randomBytes, onFatal, segmentBytes, ballastBytes: 4096, lowWatermarkBytes: 0, defer };
  const small = { stateHashInterval: 50, entriesHeldBytes: 1_000, applyBytesPerTurn: 500 };
  return new RaftHost({ ...options, ...small, log, clusterId, clock, random: chance, defer });
}
