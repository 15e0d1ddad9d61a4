// What the overlay does for containers on this node. It knows networks, addresses and names as plain data; who chose them
// is not its business. Every method is safe to repeat after a crash, and finds in the kernel what the last process left.

export interface OverlayNetwork {
  /** Unique among the networks of the node; also a file name. */
  readonly id: string;
  /** The VXLAN network identifier, 1 to 2²⁴ − 1; the same on every node. */
  readonly vni: number;
  /** "10.0.1.0/24" */
  readonly subnet: string;
  /** The same on every node: an address of the subnet that no container has. */
  readonly gateway: string;
  /** No way out, and no names but its own. */
  readonly isInternal: boolean;
  /** Of packets inside; what the underlay carries less 50 bytes when absent. More than that is refused. */
  readonly mtu?: number;
}

export interface OverlayEndpoint {
  /** Unique on the node, without blanks. */
  readonly id: string;
  readonly networkId: string;
  readonly address: string;
  /** Pinned by the caller, who unpins it after `detach`: that frees the links inside. */
  readonly namespacePath: string;
  /** Of the container's networks, one leads out. Ignored for internal networks. */
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
  readonly services: readonly VirtualService[];
  readonly names: readonly NameRecord[];
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
}

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
    | 'endpoint'
    | 'link'
    | 'service'
    | 'hairpin'
    | 'gone'
    | 'table'
    | 'host-table';
  /** An address, or the name of a link or table. */
  readonly name: string;
  readonly problem: 'missing' | 'different' | 'unexpected';
}

export interface NetworkInventory {
  readonly networkId: string;
  readonly endpoints: readonly OverlayEndpoint[];
}

export interface Overlay extends AsyncDisposable {
  /** The network's namespace, VXLAN, rules and name server. To be called again after a restart of the process. */
  ensure(network: OverlayNetwork): Promise<void>;
  /** Takes everything of it off the machine; unknown ids are fine. */
  remove(networkId: string): Promise<void>;
  /** The container's next interface (eth0, eth1 …), routes and resolver; its network is ensured. */
  attach(endpoint: OverlayEndpoint): Promise<Attached>;
  /** Unknown ids are fine. */
  detach(endpointId: string): Promise<void>;
  /** Only differences to what is programmed reach the kernel. */
  apply(networkId: string, state: OverlayState): Promise<void>;
  /** Compares what should be with what the kernel has. */
  audit(networkId: string): Promise<Drift[]>;
  /** Mends what an audit finds, and returns it. */
  repair(networkId: string): Promise<Drift[]>;
  /** The networks that exist on the node, also those of an earlier process that were not ensured again. */
  list(): Promise<NetworkInventory[]>;
}
