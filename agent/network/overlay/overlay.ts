// What the overlay does for containers on this node. It knows networks, addresses and names as plain data; who chose them
// is not its business. Every method is safe to repeat after a crash, and finds in the kernel what the last process left.

import type { PortProtocol } from '../../../core/generated/objects.ts';

export interface OverlaySubnet {
  /** "10.0.1.0/24", "fd00:1::/64" */
  readonly subnet: string;
  /** The same on every node: an address of the subnet that no container has. */
  readonly gateway: string;
}

export interface OverlayNetwork {
  /** Unique among the networks of the node; also a file name. */
  readonly id: string;
  /** The VXLAN network identifier, 1 to 2²⁴ − 1; the same on every node. */
  readonly vni: number;
  /** At least one of IPv4. Later ones may be added, and one replaced by one that is wider with the same gateway. */
  readonly subnets: readonly OverlaySubnet[];
  /** No way out, and no names but its own. */
  readonly isInternal: boolean;
  /**
   * The routing mesh's network: ports published on every node lead to its containers, which do not reach each other over
   * it. A node has one at most; it is not internal.
   */
  readonly isIngress?: true;
  /** Of packets inside; what the underlay carries less 50 bytes when absent. More than that is refused. */
  readonly mtu?: number;
}

export interface OverlayEndpoint {
  /** Unique on the node, without blanks. */
  readonly id: string;
  readonly networkId: string;
  /** Of IPv4. */
  readonly address: string;
  /** Of a network that has IPv6: as RFC 5952 writes it, like all addresses here. */
  readonly ipv6Address?: string;
  /** Pinned by the caller, who unpins it after `detach`: that frees the links inside. */
  readonly namespacePath: string;
  /**
   * Of the container's networks, one leads out. Ignored for internal networks. What comes in by another one is answered
   * by that one all the same.
   */
  readonly isDefaultRoute: boolean;
}

export interface Attached {
  /** Contents of the container's /etc/resolv.conf. */
  readonly resolvConf: string;
}

/** All that a network's namespace is to know. Parts that are the same objects as before are not looked at again. */
export interface OverlayState {
  /** Containers on other nodes. An address that leaves is cut: its connections end. Tells the nodes as well. */
  readonly remotes: readonly RemoteEndpoint[];
  /** Data path addresses of the network's nodes, beside those of remotes: of the ingress, all nodes. */
  readonly nodes?: readonly string[];
  readonly services: readonly VirtualService[];
  /** In groups: one that is the same object as before is not looked at. */
  readonly names: readonly NameGroup[];
  /** Of the ingress only. */
  readonly published?: readonly PublishedPort[];
  /** Absent: everybody may begin connections to everybody. The way out and published ports are not its business. */
  readonly policy?: NetworkPolicy;
}

/** Who may begin connections to whom; others are refused. */
export interface NetworkPolicy {
  readonly groups: readonly PolicyGroup[];
  readonly allow: readonly AllowRule[];
}

export interface PolicyGroup {
  readonly name: string;
  /** Of its containers, on whichever node. A container is in one group. */
  readonly addresses: readonly string[];
}

export interface AllowRule {
  /** Names of groups. */
  readonly from: string;
  readonly to: string;
  /** Absent: any port of any protocol. */
  readonly port?: { readonly protocol: PortProtocol; readonly number: number };
}

export interface RemoteEndpoint {
  readonly address: string;
  /** Where the data path of its node listens; the MAC address of the node's VXLAN links follows from it. */
  readonly nodeAddress: string;
}

export interface VirtualService {
  readonly vip: string;
  /** Who gets new connections, on whichever node. One that leaves keeps what it has; with none, clients are refused. */
  readonly backends: readonly string[];
  /** Of each backend, in their order, 1 to 1000: its share of new connections. All have the same when absent. */
  readonly weights?: readonly number[];
  readonly affinity?: Affinity;
}

/** New connections of a client go to the same backend, by whichever node, for as long as it stays. */
export type Affinity = 'client-address';

/** A port of this node that leads to containers on whichever node, which see their client's true address. */
export interface PublishedPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  /** Of all addresses of this node, 127.0.0.1 included, when neither this nor `hostInterface` is there. */
  readonly hostAddress?: string;
  /** Its addresses are looked at when the state is applied. */
  readonly hostInterface?: string;
  /** Who gets new connections. One that leaves keeps what it has; with none, clients are refused. */
  readonly backends: readonly PortBackend[];
  /** Containers of this node that other nodes may send to as well: those that are about to be backends. */
  readonly here?: readonly PortBackend[];
  readonly affinity?: Affinity;
}

export interface PortBackend {
  readonly address: string;
  /** The container's. */
  readonly port: number;
  /** 1 to 1000: its share of new connections; 1 when absent. */
  readonly weight?: number;
}

/** A published port that leads nowhere, as somebody else on this node has it. */
export interface PortProblem extends Omit<PublishedPort, 'backends' | 'here' | 'affinity'> {
  /** A sentence for the operator. */
  readonly reason: string;
}

/** What has one name in several records has all of their addresses. */
export type NameGroup = readonly NameRecord[];

export interface NameRecord {
  /** "web", "tasks.web"; compared without regard to case. */
  readonly name: string;
  /** The first name with an address answers when somebody asks whose it is. */
  readonly addresses: readonly string[];
}

/** Something in the kernel that is not as it should be. */
export interface Drift {
  readonly what:
    | 'node'
    | 'route'
    | 'gateway'
    | 'endpoint'
    | 'link'
    | 'service'
    | 'hairpin'
    | 'gone'
    | 'table'
    | 'port'
    | 'open-port'
    | 'return'
    | 'policy'
    | 'host-table'
    | 'host-port';
  /** An address, a port, or the name of a link or table. */
  readonly name: string;
  readonly problem: 'missing' | 'different' | 'unexpected';
}

export interface NetworkInventory {
  readonly networkId: string;
  readonly endpoints: readonly OverlayEndpoint[];
}

export interface Overlay extends AsyncDisposable {
  /**
   * The network's namespace, VXLAN, rules and name server. To be called again after a restart of the process, and when it
   * gets more or wider subnets: containers that are there reach them, and their connections go on.
   */
  ensure(network: OverlayNetwork): Promise<void>;
  /** Takes everything of it off the machine; unknown ids are fine. */
  remove(networkId: string): Promise<void>;
  /** The container's next interface (eth0, eth1 …), routes and resolver; its network is ensured. */
  attach(endpoint: OverlayEndpoint): Promise<Attached>;
  /** Unknown ids are fine. */
  detach(endpointId: string): Promise<void>;
  /** Only differences to what is programmed reach the kernel. Published ports that are in use are tried again. */
  apply(networkId: string, state: OverlayState): Promise<void>;
  /** UDP flows to these addresses end: their next packet goes to another backend. A network that is gone is fine. */
  endFlows(networkId: string, addresses: readonly string[]): Promise<void>;
  /** Published ports that this node does not serve, as of the last `apply` or `repair`. */
  portProblems(): Promise<PortProblem[]>;
  /** Compares what should be with what the kernel has. */
  audit(networkId: string): Promise<Drift[]>;
  /** Mends what an audit finds, and returns it. */
  repair(networkId: string): Promise<Drift[]>;
  /** The networks that exist on the node, also those of an earlier process that were not ensured again. */
  list(): Promise<NetworkInventory[]>;
}
