// What overlay networks need of the host itself: a table for each family, forwarding, and its published ports.

import type { Logger } from '../../../rpc/logger.ts';
import type { IpFamily } from '../../linux/ip-family.ts';
import { NetlinkSocket, netlinkProtocols } from '../../linux/netlink-socket.ts';
import { decodeAddress, listAddresses } from '../../linux/rtnetlink.ts';
import { enableForwarding, restoreForwarding } from '../forwarding.ts';
import { isIpv6InKernel } from '../ipv6-link.ts';
import { linksOf, UPLINK_PREFIX } from '../wiring.ts';
import { checkPublished, familyOfHostPort, HostPorts } from './host-ports.ts';
import { HostTable } from './host-table.ts';
import type { InnerPorts } from './ingress-mesh.ts';
import type { KernelNetwork } from './kernel-network.ts';
import type { Drift, PortProblem, PublishedPort } from './overlay.ts';
import { familiesOf } from './overlay-layout.ts';

export interface HostSideOptions {
  readonly runDir: string;
  readonly engineId: string;
  readonly dataPathPort: number;
  readonly logger: Logger;
  /** Names that the host's ends of our networks' links have, or would have. */
  readonly uplinkNames: () => readonly string[];
}

interface FamilyTable {
  readonly family: IpFamily;
  readonly table: HostTable;
}

export class HostSide implements Disposable {
  /** A socket of the host's namespace. */
  readonly routes = new NetlinkSocket(netlinkProtocols.route);
  readonly #options: HostSideOptions;
  readonly #filter = new NetlinkSocket(netlinkProtocols.netfilter);
  readonly #tables: readonly FamilyTable[];
  readonly #ports = new HostPorts(this.routes);
  /** As applied last. */
  #published: readonly PublishedPort[] | undefined;

  constructor(options: HostSideOptions) {
    this.#options = options;
    const families: readonly IpFamily[] = isIpv6InKernel() ? ['ipv4', 'ipv6'] : ['ipv4'];
    this.#tables = families.map((family) => ({
      family,
      table: new HostTable(this.#filter, { ...options, family }),
    }));
  }

  /** What an earlier process has programmed. */
  adopt(): void {
    for (const { table } of this.#tables) table.adopt();
    this.#ports.adopt(new Map(this.#tables.flatMap(({ table }) => [...table.targets.inner])));
  }

  get problems(): readonly PortProblem[] {
    return this.#ports.problems;
  }

  /** Of the ingress. The ports are published when `publish` was called. */
  planPorts(network: KernelNetwork, published: readonly PublishedPort[]): InnerPorts {
    const checked = new Set(this.#published);
    for (const entry of published) if (!checked.has(entry)) checkPublished(entry);
    this.#published = published;
    const families = familiesOf(network.layout);
    return this.#ports.plan(
      published,
      families.filter((family) => network.uplinkAddress(family) !== undefined),
    );
  }

  /** Those of the last `planPorts`, tried again; undefined: there was none. */
  replanPorts(network: KernelNetwork): InnerPorts | undefined {
    return this.#published && this.planPorts(network, this.#published);
  }

  publish(network: KernelNetwork): void {
    for (const { family, table } of this.#tables) {
      const address = network.uplinkAddress(family);
      const inner = [...this.#ports.inner].filter(([name]) => familyOfHostPort(name) === family);
      table.publish({ address, inner: new Map(address === undefined ? [] : inner) });
    }
  }

  /** In one transaction for each family; no networks, no tables. */
  writeTables(): void {
    for (const { family, table } of this.#tables) {
      const uplinks = this.#uplinks(family);
      table.write(uplinks);
      if (uplinks !== undefined && uplinks.length > 0) {
        enableForwarding(family, this.#options.runDir, this.#options.logger);
      }
    }
  }

  drift(): Drift[] {
    return this.#tables.flatMap(({ family, table }) => table.drift(this.#uplinks(family)));
  }

  /** A network is gone. Published ports end with the ingress, forwarding with the last network of whichever engine. */
  tidyUp(): void {
    this.#unpublishWithoutUplink();
    this.writeTables();
    const isLast = !linksOf(this.routes).some(({ name }) => name.startsWith(UPLINK_PREFIX));
    if (isLast) restoreForwarding(this.#options.runDir);
  }

  [Symbol.dispose](): void {
    this.#ports[Symbol.dispose]();
    this.#filter[Symbol.dispose]();
    this.routes[Symbol.dispose]();
  }

  #unpublishWithoutUplink(): void {
    for (const { family, table } of this.#tables) {
      const target = table.targets.address;
      if (target === undefined || this.#hasAddress(family, hostEndOf(target))) continue;
      if (family === 'ipv4') {
        this.#ports.clear();
        this.#published = undefined;
      }
      table.publish({ address: undefined, inner: new Map() });
    }
  }

  #hasAddress(family: IpFamily, wanted: Buffer): boolean {
    const addresses = this.routes.dump(listAddresses(family)).map(({ body }) => decodeAddress(body));
    return addresses.some(({ address }) => address.equals(wanted));
  }

  /** Ends of our networks' links; undefined: no network needs the family on this host. */
  #uplinks(family: IpFamily): string[] | undefined {
    const names = this.#options.uplinkNames();
    const links = linksOf(this.routes).filter(({ name }) => names.includes(name));
    if (family === 'ipv4') return names.length === 0 ? undefined : links.map(({ name }) => name);
    if (links.length === 0) return undefined;
    const addressed = new Set(
      this.routes.dump(listAddresses(family)).map(({ body }) => decodeAddress(body).linkIndex),
    );
    const found = links.filter(({ index }) => addressed.has(index));
    return found.length === 0 ? undefined : found.map(({ name }) => name);
  }
}

/** The host has the first address of a link, the network the second. */
function hostEndOf(networkEnd: Buffer): Buffer {
  const end = Buffer.from(networkEnd);
  const last = end.length - 1;
  end.writeUInt8(end.readUInt8(last) - 1, last);
  return end;
}
