// How an overlay network is laid out on this node, and what follows for its addresses.

import { contains, covers, type Prefix, parseAddress } from '../../../core/ip-address.ts';
import type { IpFamily } from '../../linux/ip-family.ts';
import { familyNamed } from '../ip-bytes.ts';

export interface LayoutSubnet {
  readonly prefix: Prefix;
  /** The same on every node, and of the subnet. */
  readonly gateway: string;
}

export interface OverlayLayout {
  readonly namespacePath: string;
  /** The host's end of the way out; undefined for internal networks. */
  readonly uplinkName: string | undefined;
  readonly isIngress: boolean;
  readonly vni: number;
  /** At least one of IPv4. */
  readonly subnets: readonly LayoutSubnet[];
  readonly mtu: number;
  /** The node's address and port between nodes. */
  readonly dataPathAddress: number;
  readonly dataPathPort: number;
}

export function familyOfSubnet({ prefix }: LayoutSubnet): IpFamily {
  return familyNamed(prefix.family);
}

/** Those that the network has; IPv4 always is one. */
export function familiesOf({ subnets }: Pick<OverlayLayout, 'subnets'>): IpFamily[] {
  return subnets.some((subnet) => familyOfSubnet(subnet) === 'ipv6') ? ['ipv4', 'ipv6'] : ['ipv4'];
}

/** undefined for an address outside. */
export function subnetWith(subnets: readonly LayoutSubnet[], address: string): LayoutSubnet | undefined {
  const parsed = parseAddress(address);
  return parsed && subnets.find(({ prefix }) => contains(prefix, parsed));
}

/** Each subnet is there still, as it was or wider with the same gateway: nothing that has an address notices. */
export function isWidened(before: readonly LayoutSubnet[], after: readonly LayoutSubnet[]): boolean {
  return before.every((narrow) =>
    after.some((wide) => covers(wide.prefix, narrow.prefix) && wide.gateway === narrow.gateway),
  );
}
