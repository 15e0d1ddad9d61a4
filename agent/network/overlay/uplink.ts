// The way out of an overlay network: a link between its namespace and the host. Of IPv4 it has a /31 out of 169.254.64.0/18,
// this machine's business alone; it has IPv6 as long as the host has.

import { closeSync, openSync } from 'node:fs';
import type { IpFamily } from '../../linux/ip-family.ts';
import { withinNamespace } from '../../linux/namespace.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import {
  addAddress,
  addRoute,
  createVeth,
  decodeAddress,
  deleteRoute,
  disableLinkLocalAddress,
  listAddresses,
  routeLoopbackAddresses,
  setLinkUp,
} from '../../linux/rtnetlink.ts';
import { writeNetworkSetting } from '../../linux/sysctl.ts';
import { hasIpv6, usedPrefixes } from '../host-survey.ts';
import { ipv4Bytes, ipv4Number, type Prefix } from '../ipv4.ts';
import { ipv6End, ipv6LinkMessages, type LinkEnds, NO_IPV6_ADDRESS } from '../ipv6-link.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { planLink } from '../subnet-choice.ts';
import { ignoringErrno, linksOf, NO_ADDRESS, removeLink } from '../wiring.ts';
import { familiesOf, type OverlayLayout } from './overlay-layout.ts';

const IPV4_PREFIX_LENGTH = 31;
const ESRCH = 3;

export interface UplinkOptions {
  readonly name: string;
  readonly layout: OverlayLayout;
  /** A socket of the host's namespace, and one of the network's. */
  readonly hostRoutes: NetlinkSocket;
  readonly routes: NetlinkSocket;
}

export class Uplink {
  readonly #options: UplinkOptions;
  #ends: LinkEnds<Buffer> | undefined;
  #hasIpv6 = false;

  constructor(options: UplinkOptions) {
    this.#options = options;
  }

  /** The network's end, when it is configured and has the family. */
  address(family: IpFamily): Buffer | undefined {
    if (this.#ends === undefined) return undefined;
    if (family === 'ipv4') return this.#ends.network;
    return this.#hasIpv6 ? ipv6End(this.#ends.network) : undefined;
  }

  /** IPv6 came to the host, or left it, since this was configured. */
  get isOutdated(): boolean {
    return this.#ends !== undefined && this.#wantsIpv6() !== this.#hasIpv6;
  }

  /** Makes what is missing. */
  configure(): void {
    const { name, hostRoutes, routes, layout } = this.#options;
    const [uplink, inNetwork] = this.#ensureLink();
    const link = this.#addressesOf(name, uplink);
    const ends = { host: ipv4Bytes(link.base), network: ipv4Bytes(link.base + 1) };
    this.#ends = ends;
    hostRoutes.execute([
      disableLinkLocalAddress(uplink),
      // Published ports have 127.0.0.1 as well.
      ...(layout.isIngress ? [routeLoopbackAddresses(uplink)] : []),
      addAddress({ linkIndex: uplink, address: ends.host, prefixLength: IPV4_PREFIX_LENGTH }),
      setLinkUp(uplink, true),
    ]);
    routes.execute([
      addAddress({ linkIndex: inNetwork, address: ends.network, prefixLength: IPV4_PREFIX_LENGTH }),
      disableLinkLocalAddress(inNetwork),
      setLinkUp(inNetwork, true),
      addRoute({ destination: NO_ADDRESS, prefixLength: 0, gateway: ends.host }),
    ]);
    this.#configureIpv6(uplink, inNetwork, ends);
    // Strict source checks would drop what comes from beyond the uplink.
    withinNamespace(layout.namespacePath, () =>
      writeNetworkSetting(`ipv4/conf/${UPLINK_IN_NETWORK}/rp_filter`, 0),
    );
  }

  #wantsIpv6(): boolean {
    return familiesOf(this.#options.layout).includes('ipv6') && hasIpv6(this.#options.hostRoutes);
  }

  /** Without it what goes out is refused at once: the network has no route. */
  #configureIpv6(uplink: number, inNetwork: number, ends: LinkEnds<Buffer>): void {
    const { name, hostRoutes, routes } = this.#options;
    const hadIpv6 = this.#hasIpv6;
    this.#hasIpv6 = this.#wantsIpv6();
    if (!this.#hasIpv6) {
      if (hadIpv6) ignoringErrno(ESRCH, () => routes.execute([deleteRoute(NO_IPV6_ADDRESS, 0)]));
      return;
    }
    writeNetworkSetting(`ipv6/conf/${name}/disable_ipv6`, 0);
    const messages = ipv6LinkMessages({ host: uplink, network: inNetwork }, ends);
    hostRoutes.execute(messages.host);
    routes.execute(messages.network);
  }

  /** The indexes of the host's end and the network's. One end alone belongs to an earlier namespace of the network. */
  #ensureLink(): [host: number, network: number] {
    const { name, hostRoutes, routes, layout } = this.#options;
    const atHost = linksOf(hostRoutes).find((link) => link.name === name);
    const inNetwork = linksOf(routes).find((link) => link.name === UPLINK_IN_NETWORK);
    if (atHost !== undefined && inNetwork !== undefined) return [atHost.index, inNetwork.index];
    if (atHost !== undefined) removeLink(hostRoutes, name);
    if (inNetwork !== undefined) removeLink(routes, UPLINK_IN_NETWORK);
    const namespaceFd = openSync(layout.namespacePath, 'r');
    try {
      const peer = { name: UPLINK_IN_NETWORK, namespaceFd };
      hostRoutes.execute([createVeth({ name, mtu: layout.mtu, peer })]);
    } finally {
      closeSync(namespaceFd);
    }
    return this.#ensureLink();
  }

  /** What the link has, or a free /31. */
  #addressesOf(name: string, index: number): Prefix {
    const { hostRoutes } = this.#options;
    const existing = hostRoutes
      .dump(listAddresses('ipv4'))
      .map((reply) => decodeAddress(reply.body))
      .find((address) => address.linkIndex === index && address.prefixLength === IPV4_PREFIX_LENGTH);
    if (existing !== undefined) return { base: ipv4Number(existing.address), length: IPV4_PREFIX_LENGTH };
    return planLink(name, usedPrefixes(hostRoutes));
  }
}
