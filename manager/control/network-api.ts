// Networks, as operators create, change, remove and look at them. Their addresses are given by the allocator.

import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import { emptyNetwork, type Network, type NetworkSpec } from '../../core/generated/objects.ts';
import { newId } from '../../core/ids.ts';
import { isTerminal } from '../../core/task-state.ts';
import type {
  CreateNetworkResponse,
  GetNetworkRequest,
  GetNetworkResponse,
  ListNetworksResponse,
  UpdateNetworkRequest,
  UpdateNetworkResponse,
} from '../../proto/generated/control.ts';
import { NetworkSpecCodec } from '../../proto/generated/objects.ts';
import type { Store } from '../store/store.ts';
import type { TablesView } from '../store/tables.ts';
import type { Transaction } from '../store/transaction.ts';
import type { ControlOptions } from './control-api.ts';
import { findNetwork } from './find.ts';
import { ingressNetwork, type NetworkTally, networksOf, tallyNetworks } from './network-use.ts';
import { changedNetwork, requireRoom, validNetworkSpec } from './plan-network.ts';
import { requireSpecSize } from './spec-size.ts';
import type { TakeTurn } from './turns.ts';

// The allocator is done in milliseconds unless it has much else to do; after this the network is shown as it is.
const ALLOCATION_LIMIT_MS = 5_000;

type NetworkOptions = Pick<ControlOptions, 'store' | 'clock' | 'randomBytes'> & {
  readonly takeTurn: TakeTurn;
};

/** Answers when the network has its addresses. One that cannot have them is taken out again, and the reason thrown. */
export async function createNetwork(
  { store, clock, randomBytes, takeTurn }: NetworkOptions,
  asked: NetworkSpec,
  signal: AbortSignal,
): Promise<CreateNetworkResponse> {
  const spec = validNetworkSpec(asked);
  requireSpecSize(NetworkSpecCodec, spec);
  const id = newId(randomBytes);
  await takeTurn(() =>
    store.update((tx) => {
      requireRoom(tx.view, spec);
      tx.create('network', { ...emptyNetwork, id, spec });
    }),
  );
  await untilAllocated(store, clock, id, signal);
  const network = stored(store.view, id);
  if (network.error === '') return { network };
  // Somebody may have found a use for it meanwhile: then it stays, and why it has no addresses stands in it.
  await takeTurn(() =>
    store.update((tx) => {
      if (tallyNetworks(tx.view).get(id)?.userCount === 0) tx.delete('network', id);
    }),
  );
  const isChosen = spec.subnets.length === 0 && spec.vni === 0;
  throw new SwarmError(
    isChosen ? 'resource-exhausted' : 'failed-precondition',
    `network ${spec.name}: ${network.error}`,
  );
}

export async function updateNetwork(
  { store, takeTurn }: NetworkOptions,
  { networkId, version, spec: asked }: UpdateNetworkRequest,
): Promise<UpdateNetworkResponse> {
  const spec = validNetworkSpec(asked);
  requireSpecSize(NetworkSpecCodec, spec);
  await takeTurn(() =>
    store.update((tx) => {
      const network = stored(tx.view, networkId);
      // Whoever comes too late hears that first, and not what else is wrong.
      tx.update('network', network, version);
      tx.update('network', changedNetwork(tx.view, network, spec));
    }),
  );
  return { network: stored(store.view, networkId) };
}

/** Throws `failed-precondition` that names who needs it. */
export async function removeNetwork({ store, takeTurn }: NetworkOptions, reference: string): Promise<string> {
  return takeTurn(() =>
    store.update((tx) => {
      const network = findNetwork(tx.view, reference);
      removeUnused(tx, network);
      return network.id;
    }),
  );
}

export function getNetwork(
  view: TablesView,
  { network: reference, verbose }: GetNetworkRequest,
): GetNetworkResponse {
  const network = findNetwork(view, reference);
  const { use } = tallyOf(view, network);
  if (!verbose) return { network, use, services: [], tasks: [] };
  const ingressId = ingressNetwork(view)?.id;
  const isPart = (references: readonly { readonly networkId: string }[]) =>
    references.some(({ networkId }) => networkId === network.id);
  return {
    network,
    use,
    services: [...view.service.values()].filter(
      ({ spec, virtualAddresses }) =>
        isPart(virtualAddresses) || networksOf(spec, ingressId).includes(network.id),
    ),
    tasks: [...view.task.values()].filter(
      ({ status, attachments }) => !isTerminal(status.state) && isPart(attachments),
    ),
  };
}

export function listNetworks(view: TablesView): ListNetworksResponse {
  const tallies = tallyNetworks(view);
  return {
    networks: [...view.network.values()].map((network) => ({
      network,
      use: (tallies.get(network.id) as NetworkTally).use,
    })),
  };
}

function tallyOf(view: TablesView, { id }: Network): NetworkTally {
  return tallyNetworks(view).get(id) as NetworkTally;
}

function removeUnused(tx: Transaction, network: Network): void {
  const { users, userCount } = tallyOf(tx.view, network);
  if (userCount > 0) {
    const more = userCount > users.length ? ` and ${userCount - users.length} more` : '';
    throw new SwarmError(
      'failed-precondition',
      `network ${network.spec.name} is in use by ${users.join(', ')}${more}`,
      { hint: 'Take it from them first: "tsswarm service update --network-rm", or remove them.' },
    );
  }
  tx.delete('network', network.id);
}

/** Until the allocator has given it what it needs, or has said why not; for so long at most, and while `signal` asks. */
function untilAllocated(store: Store, clock: Clock, id: string, signal: AbortSignal): Promise<void> {
  const isSettled = () => {
    const network = store.view.network.get(id);
    return network === undefined || network.error !== '' || isAllocated(network);
  };
  if (isSettled() || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      unsubscribe();
      cancel();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const unsubscribe = store.subscribe(() => {
      if (isSettled()) end();
    });
    const cancel = clock.after(ALLOCATION_LIMIT_MS, end);
    signal.addEventListener('abort', end);
  });
}

function isAllocated({ spec, vni, subnets }: Network): boolean {
  if (spec.configOnly || spec.configFrom !== '') return true;
  return subnets.length > 0 && (vni !== 0 || spec.driver !== 'overlay');
}

function stored(view: TablesView, id: string): Network {
  const network = view.network.get(id);
  if (network === undefined) throw new SwarmError('not-found', `network ${id} not found`);
  return network;
}
