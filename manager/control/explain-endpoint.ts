// The part of `why` about a service's networks and ports: what the allocator has not given it yet. Pure.

import type { Network, PortConfig, Service } from '../../core/generated/objects.ts';
import { isNodeNetwork } from '../../core/validate-endpoint.ts';
import type { TablesView } from '../store/tables.ts';
import type { Draft } from './explain-task.ts';
import { ingressNetwork, isFull, tallyNetworks } from './network-use.ts';

export function explainEndpoint(view: TablesView, service: Service): Draft[] {
  const networks = service.spec.task.networks.filter(({ networkId }) => !isNodeNetwork(networkId));
  return [
    ...networks.flatMap(({ networkId }) => explainNetwork(view, service, networkId)),
    ...explainPorts(view, service),
  ];
}

/** What gives a network more addresses. */
export function moreAddresses({ spec }: Network): string {
  return `give it more addresses: tsswarm network update --subnet-add SUBNET ${spec.name}`;
}

function explainNetwork(view: TablesView, service: Service, networkId: string): Draft[] {
  const { name } = service.spec;
  const network = view.network.get(networkId);
  const failed = (text: string, remedy = ''): Draft => ({
    ok: false,
    subject: 'allocator',
    depth: 1,
    text,
    remedy,
  });
  if (network === undefined)
    return [
      failed(
        `network ${networkId} is not there any more`,
        `tsswarm service update --network-rm ${networkId} ${name}`,
      ),
    ];
  const { spec, error } = network;
  if (error !== '') return [failed(`network ${spec.name}: ${error}`)];
  const needsAddress = service.spec.endpoint.mode === 'vip' && spec.driver === 'overlay';
  const has = service.virtualAddresses.some((given) => given.networkId === networkId);
  if (!needsAddress || has) return [];
  if (isFull(tallyNetworks(view).get(networkId)?.use))
    return [
      failed(`it has no address in network ${spec.name}: all of them are in use`, moreAddresses(network)),
    ];
  return [failed(`it has no address in network ${spec.name} yet`)];
}

function explainPorts(view: TablesView, { spec, ports }: Service): Draft[] {
  const waiting = spec.endpoint.ports.filter(
    (port) => port.publishMode === 'ingress' && !ports.some((given) => isGiven(port, given)),
  );
  const remedy =
    waiting.length > 0 && ingressNetwork(view) === undefined
      ? 'there is no ingress network: tsswarm network create --ingress ingress'
      : '';
  return waiting.map((port) => ({
    ok: false,
    subject: 'allocator',
    depth: 1,
    text: `port ${port.publishedPort || `for ${port.targetPort}`}/${port.protocol} is not published yet`,
    remedy,
  }));
}

function isGiven(asked: PortConfig, given: PortConfig): boolean {
  return (
    asked.publishMode === given.publishMode &&
    asked.targetPort === given.targetPort &&
    asked.protocol === given.protocol &&
    asked.hostAddress === given.hostAddress &&
    asked.hostInterface === given.hostInterface &&
    (asked.publishedPort === 0 || asked.publishedPort === given.publishedPort)
  );
}
