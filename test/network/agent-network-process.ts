// A process with the cluster's networks of a node open, that is told of many services as managers tell it. Arguments: run
// directory, state directory, data path address. It answers calls.

import { networkLog } from '../../agent/log.ts';
import { ClusterNetworks } from '../../agent/network/cluster-networks.ts';
import type { Network as LocalNetwork } from '../../agent/network/network.ts';
import { emptyNetwork, emptyNetworkSpec, emptySubnet } from '../../core/generated/objects.ts';
import {
  emptyAssignments,
  emptyNetworkEndpoint,
  emptyNetworkService,
  emptyNetworkUpdate,
  emptyNodeLocation,
  type NetworkEndpoint,
  type NetworkUpdate,
} from '../../proto/generated/dispatcher.ts';
import { answerCalls } from './answer-calls.ts';

const NODES = 100;
const NETWORK_ID = 'many';

const [runDir = '', dataPathAddress = ''] = process.argv.slice(2);

/** Nobody attaches anything to it. */
const local: LocalNetwork = {
  attach: () => Promise.reject(new Error('no task of the node alone')),
  drain: async () => {},
  detach: async () => {},
  list: async () => [],
  [Symbol.asyncDispose]: async () => {},
};

let problem = '';

const networks = await ClusterNetworks.open({
  nodeId: 'n0',
  local,
  runDir,
  engineId: 'many',
  dataPathAddress,
  onProblem: (text) => {
    problem = text;
  },
  onTunnelKey: () => {},
  onRepair: () => {},
  logger: networkLog,
});

interface Size {
  readonly services: number;
  readonly tasks: number;
}

/** Milliseconds until all of it is in the kernel, and by how many bytes the process has grown. */
async function learn({ services, tasks }: Size): Promise<{ ms: number; bytes: number }> {
  const nodes = Array.from({ length: NODES }, (_, index) => ({
    ...emptyNodeLocation,
    nodeId: `n${index}`,
    dataPathAddress: index === 0 ? dataPathAddress : `192.0.2.${100 + index}`,
  }));
  const update: NetworkUpdate = {
    ...emptyNetworkUpdate,
    networkId: NETWORK_ID,
    complete: true,
    network: {
      ...emptyNetwork,
      id: NETWORK_ID,
      vni: 0x100100,
      mtu: 1450,
      spec: { ...emptyNetworkSpec, name: NETWORK_ID },
      subnets: [{ ...emptySubnet, subnet: '10.0.0.0/8', gateway: '10.0.0.1' }],
    },
    services: Array.from({ length: services }, (_, service) => ({
      ...emptyNetworkService,
      serviceId: `s${service}`,
      name: `service${service}`,
      virtualAddresses: [`10.1.${service >> 8}.${service & 255}`],
    })),
    endpoints: Array.from({ length: services * tasks }, (_, index) => endpoint(index, tasks)),
  };
  const before = process.memoryUsage().rss;
  const started = performance.now();
  await networks.hear({ ...emptyAssignments, complete: true, nodes, networks: [update] });
  if (problem !== '') throw new Error(problem);
  return { ms: performance.now() - started, bytes: process.memoryUsage().rss - before };
}

/** Milliseconds of each: a task stops serving, or serves again, until the kernel has it. */
async function change({ tasks, rounds }: Size & { rounds: number }): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const changed = { ...endpoint(7 * (round >> 1), tasks), serving: round % 2 === 1 };
    const update = { ...emptyNetworkUpdate, networkId: NETWORK_ID, endpoints: [changed] };
    const started = performance.now();
    await networks.hear({ ...emptyAssignments, networks: [update] });
    times.push(performance.now() - started);
  }
  return times;
}

function endpoint(index: number, tasks: number): NetworkEndpoint {
  return {
    ...emptyNetworkEndpoint,
    taskId: `t${index}`,
    serviceId: `s${Math.floor(index / tasks)}`,
    nodeId: `n${index % NODES}`,
    slot: (index % tasks) + 1,
    addresses: [`10.${2 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`],
    serving: true,
    weight: 1,
    // Otherwise a change would be heard only when flows have been given their time to end.
    drainMs: 60_000,
  };
}

await answerCalls({ learn, change });
