// A network in Docker's field names, as JSON. Pure.

import type { Network, NetworkSpec, Node, Service, Subnet, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import type { GetNetworkResponse } from '../../proto/generated/control.ts';
import { formatRule } from '../flags/policy.ts';
import { formatTime } from './time.ts';

/** Docker's driver of what only holds options is "null". */
export function driverName({ driver, configOnly }: NetworkSpec): string {
  return configOnly ? 'null' : driver;
}

/** Services and peers appear when the manager was asked for them. */
export function toDockerNetwork(found: GetNetworkResponse, nodes: readonly Node[]): object {
  const { network, services, tasks } = found;
  const { spec, meta } = network;
  const subnets = network.subnets.length > 0 ? network.subnets : spec.subnets;
  const peers = peersOf(tasks, nodes);
  return {
    Name: spec.name,
    Id: network.id,
    Created: formatTime(meta.createdAtMs),
    Scope: 'swarm',
    Driver: driverName(spec),
    EnableIPv4: true,
    EnableIPv6: spec.ipv6,
    IPAM: { Driver: 'default', Options: null, Config: subnets.map(ipamConfig) },
    Internal: spec.internal,
    Attachable: spec.attachable,
    Ingress: spec.ingress,
    ConfigFrom: { Network: spec.configFrom },
    ConfigOnly: spec.configOnly,
    Containers: {},
    Options: options(network),
    Labels: spec.labels,
    ...(spec.policy && { Policy: { DenyByDefault: true, Allow: spec.policy.allow.map(formatRule) } }),
    ...(network.error !== '' && { Error: network.error }),
    ...(peers.length > 0 && { Peers: peers }),
    ...(services.length + tasks.length > 0 && { Services: servicesOf(found, nodes) }),
  };
}

function ipamConfig({ subnet, ipRange, gateway, auxiliaryAddresses }: Subnet): object {
  return {
    Subnet: subnet,
    ...(ipRange !== '' && { IPRange: ipRange }),
    ...(gateway !== '' && { Gateway: gateway }),
    ...(Object.keys(auxiliaryAddresses).length > 0 && { AuxiliaryAddresses: auxiliaryAddresses }),
  };
}

function options({ spec, vni, mtu: chosen }: Network): object {
  const mtu = chosen || spec.mtu;
  return {
    ...spec.options,
    ...(vni > 0 && { 'com.docker.network.driver.overlay.vxlanid_list': String(vni) }),
    ...(mtu > 0 && { 'com.docker.network.driver.mtu': String(mtu) }),
    ...(spec.encrypted && { encrypted: '' }),
  };
}

/** The nodes that the network reaches: those of its tasks. */
function peersOf(tasks: readonly Task[], nodes: readonly Node[]): object[] {
  const ids = new Set(tasks.map(({ nodeId }) => nodeId));
  return nodes
    .filter(({ id }) => ids.has(id))
    .map((node) => ({ Name: node.description.hostname, IP: addressOf(node) }));
}

function servicesOf({ network, services, tasks }: GetNetworkResponse, nodes: readonly Node[]): object {
  const byId = new Map(services.map((service) => [service.id, service]));
  const ids = new Set([...byId.keys(), ...tasks.map(({ serviceId }) => serviceId)]);
  const entries = [...ids].map((id) => {
    const service = byId.get(id);
    const vip = service?.virtualAddresses.find(({ networkId }) => networkId === network.id)?.address ?? '';
    const name = service?.spec.name ?? id;
    const own = tasks.filter(({ serviceId }) => serviceId === id);
    return [
      name,
      {
        VIP: vip,
        Ports: network.spec.ingress && service !== undefined ? portsOf(service) : [],
        LocalLBIndex: 0,
        Tasks: own.map((task) => taskEntry(task, name, network.id, nodes)),
      },
    ] as const;
  });
  return Object.fromEntries(entries);
}

function portsOf({ ports }: Service): string[] {
  return ports.map(({ targetPort, publishedPort }) => `Target: ${targetPort}, Publish: ${publishedPort}`);
}

/** An endpoint has no other name than its task. */
function taskEntry(task: Task, serviceName: string, networkId: string, nodes: readonly Node[]): object {
  const node = nodes.find(({ id }) => id === task.nodeId);
  const [address = ''] = task.attachments.find((given) => given.networkId === networkId)?.addresses ?? [];
  return {
    Name: `${taskName(serviceName, task)}.${task.id}`,
    EndpointID: task.id,
    EndpointIP: address,
    Info: { 'Host IP': node === undefined ? '' : addressOf(node) },
  };
}

function addressOf({ dataPathAddress, status }: Node): string {
  return dataPathAddress === '' ? status.address : dataPathAddress;
}
