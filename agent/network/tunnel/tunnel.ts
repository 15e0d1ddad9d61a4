// The WireGuard tunnel of this node to all others that have encrypted networks. Their VXLANs use addresses inside it, and
// a port of their own that leaves and enters by nothing else: when the tunnel is down, nothing is sent in clear.
//
// The kernel's WireGuard where there is one, wireguard-go where there is not; "wg" configures both.

import { execFile, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { messageOf, SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { SystemCallError } from '../../linux/libc.ts';
import { NetlinkSocket, netlinkProtocols } from '../../linux/netlink-socket.ts';
import { deleteTable, drop, interfaceIs } from '../../linux/nftables.ts';
import { destinationPortIs, protocolIs } from '../../linux/nftables-maps.ts';
import { addAddress, type Link, setLinkUp } from '../../linux/rtnetlink.ts';
import { createWireguard, setLinkMtu } from '../../linux/tunnel-link.ts';
import { type Chain, chainMessages, replaceTable } from '../chains.ts';
import { ipv4Bytes, parseIpv4 } from '../ipv4.ts';
import { protocolNumbers } from '../port-holder.ts';
import { ignoringErrno, linksOf, removeLink } from '../wiring.ts';
import { readTunnelKey, renewTunnelKey, type TunnelKey } from './tunnel-keys.ts';

export interface TunnelLocation {
  /** The key lies here: it ends with the machine's uptime. */
  readonly runDir: string;
  readonly engineId: string;
}

export interface TunnelOptions extends TunnelLocation {
  readonly logger: Logger;
}

export interface TunnelPeer {
  readonly publicKey: string;
  /** Where its node is reached from outside the tunnel. */
  readonly endpoint: string;
  /** Inside the tunnel. */
  readonly address: string;
}

/** UDP port of the VXLANs inside the tunnel. */
export const TUNNELLED_PORT = 4790;
/** WireGuard's usual one. */
const WIREGUARD_PORT = 51_820;
/** All tunnel addresses are in one /16 of the shared address space (RFC 6598). */
const TUNNEL_PREFIX_LENGTH = 16;
/** Outer IPv4 and UDP headers and WireGuard's own. */
const OVERHEAD = 60;
const ETHERNET_MTU = 1500;
const KEY_FILE = 'tunnel.key';
const CONFIGURATION_FILE = 'tunnel.conf';
const LINK_LIMIT_MS = 3_000;
const POLL_MS = 20;
const COMMAND_LIMIT_MS = 5_000;
const ENOENT = 2;
const EOPNOTSUPP = 95;

const run = promisify(execFile);

/** What the node's key was when it last had one; undefined: it has none yet. */
export function tunnelKeyOf({ runDir }: TunnelLocation): string | undefined {
  return readTunnelKey(join(runDir, KEY_FILE))?.publicKey;
}

export class Tunnel implements Disposable {
  readonly #options: TunnelOptions;
  readonly #routes = new NetlinkSocket(netlinkProtocols.route);
  readonly #tables = new NetlinkSocket(netlinkProtocols.netfilter);
  #key: TunnelKey;

  private constructor(options: TunnelOptions) {
    this.#options = options;
    this.#key = readTunnelKey(this.#keyFile) ?? renewTunnelKey(this.#keyFile);
  }

  /** Throws `failed-precondition` when this node has no way to encrypt. */
  static async open(options: TunnelOptions): Promise<Tunnel> {
    const tunnel = new Tunnel(options);
    try {
      tunnel.#closeWayAround();
      await tunnel.#ensureLink();
      return tunnel;
    } catch (error) {
      tunnel[Symbol.dispose]();
      throw error;
    }
  }

  get publicKey(): string {
    return this.#key.publicKey;
  }

  /** A new key, which the other nodes have to hear of: until then they are not reached. */
  renewKey(): void {
    this.#key = renewTunnelKey(this.#keyFile);
  }

  /** Repeating it mends what is missing, the link included. Sessions with peers that stay are not disturbed. */
  async apply(address: string, peers: readonly TunnelPeer[]): Promise<void> {
    this.#closeWayAround();
    const { index } = await this.#ensureLink();
    const bytes = ipv4Bytes(parseIpv4(address) ?? 0);
    this.#routes.execute([
      setLinkMtu(index, ETHERNET_MTU - OVERHEAD),
      addAddress({ linkIndex: index, address: bytes, prefixLength: TUNNEL_PREFIX_LENGTH }),
      setLinkUp(index, true),
    ]);
    await this.#configure(peers);
  }

  /** Lets go of the tunnel, which works on. */
  [Symbol.dispose](): void {
    this.#routes[Symbol.dispose]();
    this.#tables[Symbol.dispose]();
  }

  get #keyFile(): string {
    return join(this.#options.runDir, KEY_FILE);
  }

  async #ensureLink(): Promise<Link> {
    const name = linkNameOf(this.#options);
    const existing = linksOf(this.#routes).find((link) => link.name === name);
    if (existing !== undefined) return existing;
    try {
      this.#routes.execute([createWireguard(name)]);
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== EOPNOTSUPP) throw error;
      await this.#startInUserspace(name);
    }
    const made = linksOf(this.#routes).find((link) => link.name === name);
    if (made !== undefined) return made;
    throw new SwarmError('internal', `link ${name} was made and is not there`);
  }

  /** It outlives this process, as a link of the kernel does, and ends with its link. */
  async #startInUserspace(name: string): Promise<void> {
    const child = spawn('wireguard-go', ['-f', name], { detached: true, stdio: 'ignore' });
    let failure: string | undefined;
    child.once('error', (error) => {
      failure = messageOf(error);
    });
    child.once('exit', (code) => {
      failure ??= `it ended with ${code}`;
    });
    child.unref();
    const deadlineMs = performance.now() + LINK_LIMIT_MS;
    while (!linksOf(this.#routes).some((link) => link.name === name)) {
      if (failure !== undefined || performance.now() > deadlineMs)
        throw new SwarmError(
          'failed-precondition',
          `this node cannot encrypt: its kernel has no WireGuard, and wireguard-go does not run (${failure ?? 'no link'})`,
          { hint: 'apt-get install wireguard-go wireguard-tools, or a kernel with WireGuard (Linux 5.6).' },
        );
      await delay(POLL_MS);
    }
    this.#options.logger.info({ link: name }, 'encrypting with wireguard-go: the kernel has no WireGuard');
  }

  async #configure(peers: readonly TunnelPeer[]): Promise<void> {
    const configuration = [
      `[Interface]\nPrivateKey = ${this.#key.privateKey}\nListenPort = ${WIREGUARD_PORT}\n`,
      ...peers.map(
        ({ publicKey, endpoint, address }) =>
          `[Peer]\nPublicKey = ${publicKey}\nAllowedIPs = ${address}/32\nEndpoint = ${endpoint}:${WIREGUARD_PORT}\n`,
      ),
    ].join('\n');
    // "wg" opens its standard input by name, which a pipe of Node's does not allow.
    const file = join(this.#options.runDir, CONFIGURATION_FILE);
    writeFileSync(file, configuration, { mode: 0o600 });
    try {
      await run('wg', ['syncconf', linkNameOf(this.#options), file], { timeout: COMMAND_LIMIT_MS });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      throw new SwarmError('failed-precondition', 'this node cannot encrypt: the program "wg" is missing', {
        hint: 'apt-get install wireguard-tools',
        cause: error,
      });
    } finally {
      rmSync(file, { force: true });
    }
  }

  /** Nothing of encrypted networks comes or goes but through the tunnel. */
  #closeWayAround(): void {
    const table = tableNameOf(this.#options);
    const isOurs = [...protocolIs(protocolNumbers.udp), ...destinationPortIs(TUNNELLED_PORT)];
    const link = linkNameOf(this.#options);
    const chains: Chain[] = [
      {
        name: 'out',
        base: { type: 'filter', hook: 'output', priority: -200 },
        rules: [[...isOurs, ...interfaceIs('outputName', link, false), ...drop()]],
      },
      {
        name: 'in',
        base: { type: 'filter', hook: 'prerouting', priority: -200 },
        rules: [[...isOurs, ...interfaceIs('inputName', link, false), ...drop()]],
      },
    ];
    this.#tables.executeBatch([...replaceTable(table), ...chainMessages(table, chains)]);
  }
}

/** Takes the tunnel off the machine; nothing is fine. */
export function destroyTunnel(location: TunnelLocation): void {
  using routes = new NetlinkSocket(netlinkProtocols.route);
  using tables = new NetlinkSocket(netlinkProtocols.netfilter);
  removeLink(routes, linkNameOf(location));
  ignoringErrno(ENOENT, () => tables.executeBatch([deleteTable(tableNameOf(location))]));
}

/** Unique on the machine: wireguard-go's socket is named by it as well. */
function linkNameOf({ engineId }: TunnelLocation): string {
  return `tswg-${engineId}`;
}

function tableNameOf({ engineId }: TunnelLocation): string {
  return `tsswarm_tunnel_${engineId}`;
}
