// Plays the allocator's part for tests of what stands before and behind it: networks get a number and subnets, services
// virtual addresses and ports.

import type { Network, Service, Subnet } from '../../core/generated/objects.ts';
import { emptySubnet } from '../../core/generated/objects.ts';
import { formatAddress, type Prefix, parsePrefix } from '../../core/ip-address.ts';
import { isNodeNetwork } from '../../core/validate-endpoint.ts';
import type { Store } from '../../manager/store/store.ts';
import type { Transaction } from '../../manager/store/transaction.ts';

export interface PlayedAllocator {
  /** Name of a network → why it cannot have what it needs. */
  readonly refusals: Map<string, string>;
  /** Throws what went wrong meanwhile. */
  stop(): Promise<void>;
}

export function playAllocator(store: Store): PlayedAllocator {
  const refusals = new Map<string, string>();
  let work: Promise<unknown> = Promise.resolve();
  const allocate = (decide: (tx: Transaction) => void) => {
    work = work.then(() => store.update(decide));
  };
  const unsubscribe = store.subscribe(({ events }) => {
    for (const { kind, action, object } of events) {
      if (kind === 'network' && action === 'created')
        allocate((tx) => allocateNetwork(tx, object.id, refusals));
      if (kind === 'service' && action !== 'removed') allocate((tx) => allocateService(tx, object.id));
    }
  });
  return {
    refusals,
    async stop() {
      unsubscribe();
      await work;
    },
  };
}

function allocateNetwork(tx: Transaction, id: string, refusals: ReadonlyMap<string, string>): void {
  const network = tx.view.network.get(id);
  if (network === undefined) return;
  const error = refusals.get(network.spec.name);
  if (error !== undefined) {
    tx.update('network', { ...network, error });
    return;
  }
  const number = tx.view.network.size;
  const { spec } = network;
  const wanted = spec.subnets.length > 0 ? spec.subnets : [{ ...emptySubnet, subnet: `10.0.${number}.0/24` }];
  const vni = spec.driver === 'overlay' ? spec.vni || 4096 + number : 0;
  tx.update('network', { ...network, vni, subnets: wanted.map(withGateway) });
}

function withGateway(subnet: Subnet): Subnet {
  return { ...subnet, gateway: subnet.gateway || addressIn(subnet, 1n) };
}

function allocateService(tx: Transaction, id: string): void {
  const service = tx.view.service.get(id);
  if (service === undefined) return;
  const { spec } = service;
  const networks = spec.task.networks.filter(({ networkId }) => !isNodeNetwork(networkId));
  const virtualAddresses = networks.flatMap(({ networkId, virtualAddresses: [wanted] }) => {
    const network = tx.view.network.get(networkId);
    const address = wanted ?? (network && virtualAddress(tx, network, service));
    return address === undefined || spec.endpoint.mode === 'dnsrr' ? [] : [{ networkId, address }];
  });
  const ports = spec.endpoint.ports.map((port, index) =>
    port.publishMode === 'host' ? port : { ...port, publishedPort: port.publishedPort || 30_000 + index },
  );
  const next = { ...service, virtualAddresses, ports };
  if (JSON.stringify(next) !== JSON.stringify(service)) tx.update('service', next);
}

/** The one that it has, or one behind those of the services before. */
function virtualAddress(tx: Transaction, network: Network, service: Service): string | undefined {
  const held = service.virtualAddresses.find(({ networkId }) => networkId === network.id)?.address;
  const [subnet] = network.subnets;
  return held ?? (subnet && addressIn(subnet, BigInt(tx.view.service.size + 1)));
}

function addressIn({ subnet }: Subnet, offset: bigint): string {
  const prefix = parsePrefix(subnet) as Prefix;
  return formatAddress({ family: prefix.family, value: prefix.base + offset });
}
