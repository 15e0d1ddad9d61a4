// The routing mesh in the namespace of the ingress network: which container a published port leads to, and the way back
// of answers (ingress-rulesets.ts). Ports are inner ports here: host-ports.ts tells which one a published port has.

import { release } from 'node:os';
import { SwarmError } from '../../../core/errors.ts';
import type { PortProtocol } from '../../../core/generated/objects.ts';
import { deleteConnections } from '../../linux/conntrack.ts';
import { type IpFamily, ipFamilies } from '../../linux/ip-family.ts';
import { SystemCallError } from '../../linux/libc.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import { listRules } from '../../linux/nftables.ts';
import {
  addElements,
  deleteElements,
  portField,
  protocolPortKey,
  type SetElement,
} from '../../linux/nftables-maps.ts';
import { addRoutingRule, isMarkRule, listRoutingRules } from '../../linux/routing-rules.ts';
import {
  addPermanentNeighbour,
  addRoute,
  decodeNeighbour,
  decodeRoute,
  listNeighbours,
  listRoutes,
} from '../../linux/rtnetlink.ts';
import { addressText, bytesOf, familyOf } from '../ip-bytes.ts';
import { protocolNumbers } from '../port-holder.ts';
import { ignoringErrno } from '../wiring.ts';
import {
  type BalanceChange,
  type BalanceSets,
  balanceElements,
  balanceMessages,
  balancesIn,
} from './balance-sets.ts';
import { type Balance, isSameBalance, planBalance } from './balancing.ts';
import { compareMaps } from './drift.ts';
import { INGRESS_TABLE, ingressRules, ingressSets, returnRuleset } from './ingress-rulesets.ts';
import { nodeHop, nodeMac, RETURN_HOP, VXLAN_INDEX } from './node-entries.ts';
import type { Drift, PublishedPort } from './overlay.ts';
import { type Elements, readRuleset, rulesetMessages } from './ruleset.ts';

/** Protocol and inner port. */
export type InnerPort = `${PortProtocol} ${number}`;

/** What is published as which inner port; the same object means that nothing has changed. */
export type InnerPorts = ReadonlyMap<InnerPort, PublishedPort>;

type InnerPortEntry = readonly [name: InnerPort, published: PublishedPort];

interface MeshContents {
  readonly ports: ReadonlyMap<string, Balance>;
  /** "10.0.0.5 tcp 80" */
  readonly open: ReadonlySet<string>;
}

/** Protocol and port, padded. */
const PORT_KEY_BYTES = 8;
const RETURN_TABLE = 200;
const RETURN_PRIORITY = 100;
const EEXIST = 17;
const EINVAL = 22;
const EOPNOTSUPP = 95;
const ENOENT = 2;

function portSetsOf(family: IpFamily): BalanceSets {
  const { addressBytes } = ipFamilies[family];
  return {
    table: INGRESS_TABLE,
    family,
    chains: ingressSets.ports.name,
    slots: ingressSets.targets.name,
    keyOf: (name) => {
      const [protocol, port] = name.split(' ') as [PortProtocol, string];
      return protocolPortKey(protocolNumbers[protocol], Number(port));
    },
    nameIn: (key) => `${protocolIn(key, 0)} ${key.readUInt16BE(4)}`,
    valueOf: (backend) => {
      const [address = '', port] = backend.split(' ');
      return Buffer.concat([bytesOf(address), portField(Number(port))]);
    },
    backendIn: (value) =>
      `${addressText(value.subarray(0, addressBytes))} ${value.readUInt16BE(addressBytes)}`,
  };
}

/** Of one family of the network. */
export class IngressMesh {
  readonly #family: IpFamily;
  readonly #sets: BalanceSets;
  readonly #routes: NetlinkSocket;
  readonly #tables: NetlinkSocket;
  readonly #uplinkAddress: () => Buffer | undefined;
  readonly #isLocal: (address: string) => boolean;
  readonly #changeTable: (messages: readonly NetlinkMessage[], rewrite: () => void) => void;
  /** Those that have backends. */
  readonly #ports = new Map<string, Balance>();
  readonly #open = new Set<string>();
  #applied: InnerPorts = new Map();
  #published: ReadonlySet<PublishedPort> = new Set();

  constructor(options: {
    readonly family: IpFamily;
    readonly routes: NetlinkSocket;
    readonly tables: NetlinkSocket;
    /** undefined while the host has nothing of the family. */
    readonly uplinkAddress: () => Buffer | undefined;
    readonly isLocal: (address: string) => boolean;
    /** Executes the messages; when the table is not what it should be, writes it anew. */
    readonly changeTable: (messages: readonly NetlinkMessage[], rewrite: () => void) => void;
  }) {
    this.#family = options.family;
    this.#sets = portSetsOf(options.family);
    this.#routes = options.routes;
    this.#tables = options.tables;
    this.#uplinkAddress = options.uplinkAddress;
    this.#isLocal = options.isLocal;
    this.#changeTable = options.changeTable;
  }

  /** Makes what is missing and takes over what is there. */
  open(): void {
    this.#configureReturn();
    const found = readMesh(this.#tables, this.#family);
    for (const [name, balance] of found?.ports ?? []) this.#ports.set(name, balance);
    for (const opening of found?.open ?? []) {
      if (this.#isLocal(addressOf(opening))) this.#open.add(opening);
    }
    if (found === undefined || found.open.size !== this.#open.size) this.#writeTable();
  }

  /** `published` also tells who of this node other nodes may send to, whether or not this node has the port. */
  apply(ports: InnerPorts, published: readonly PublishedPort[]): void {
    const changed = [...ports].filter(([name, entry]) => this.#applied.get(name) !== entry);
    const changes = this.#planChanges(ports, changed);
    const openings = this.#missingOpenings(
      published.filter((entry) => !this.#published.has(entry)),
      () => true,
    );
    this.#published = new Set(published);
    for (const { name, to } of changes) {
      if (to === undefined) this.#ports.delete(name);
      else this.#ports.set(name, to);
    }
    this.#applied = ports;
    this.#change([...balanceMessages(this.#sets, changes), ...this.#openMessages(openings)]);
    this.#forgetRefused(changes);
  }

  /** For a container that comes to this node. */
  attach(addresses: readonly string[]): void {
    const openings = this.#missingOpenings([...this.#published], (each) => addresses.includes(each));
    this.#change(this.#openMessages(openings));
  }

  /** For one that leaves. A container that drains stays open: other nodes may not know yet. */
  detach(addresses: readonly string[]): void {
    const openings = [...this.#open].filter((opening) => addresses.includes(addressOf(opening)));
    for (const opening of openings) this.#open.delete(opening);
    this.#change(
      deleteElements(INGRESS_TABLE, ingressSets.open.name, openings.map(openingKey), this.#family),
    );
  }

  audit(): Drift[] {
    const found = readMesh(this.#tables, this.#family);
    const tableDrift: Drift[] =
      found === undefined
        ? [{ what: 'table', name: INGRESS_TABLE, problem: 'different' }]
        : [
            ...compareMaps('port', this.#ports, found.ports),
            ...compareMaps('open-port', setAsMap(this.#open), setAsMap(found.open)),
          ];
    return [...this.#returnDrift(), ...tableDrift];
  }

  repair(): void {
    this.#configureReturn();
    this.#writeTable();
  }

  #planChanges(ports: InnerPorts, changed: readonly InnerPortEntry[]): BalanceChange[] {
    const left = [...this.#ports.keys()].filter((name) => !ports.has(name as InnerPort));
    return [
      ...left.map((name) => ({ name, from: this.#ports.get(name), to: undefined })),
      ...changed.flatMap(([name, { backends, affinity }]) => {
        const from = this.#ports.get(name);
        const weighted = backends
          .filter(({ address }) => familyOf(address) === this.#family)
          .map(({ address, port, weight = 1 }) => ({ name: `${address} ${port}`, weight }));
        const planned = planBalance(weighted, affinity ?? 'random', from);
        const to = planned.slots.length === 0 ? undefined : planned;
        return isSameBalance(from, to) ? [] : [{ name, from, to }];
      }),
    ];
  }

  #missingOpenings(published: readonly PublishedPort[], isMeant: (address: string) => boolean): string[] {
    const openings = published.flatMap(({ protocol, backends, here = [] }) =>
      [...backends, ...here]
        .filter(({ address }) => familyOf(address) === this.#family)
        .filter(({ address }) => isMeant(address) && this.#isLocal(address))
        .map(({ address, port }) => `${address} ${protocol} ${port}`),
    );
    return [...new Set(openings)].filter((opening) => !this.#open.has(opening));
  }

  #openMessages(openings: readonly string[]): NetlinkMessage[] {
    for (const opening of openings) this.#open.add(opening);
    return addElements(INGRESS_TABLE, ingressSets.open.name, openings.map(openElement), this.#family);
  }

  /** A UDP client that was refused and keeps sending would go on to reach nothing: its flow is known as not translated. */
  #forgetRefused(changes: readonly BalanceChange[]): void {
    const source = this.#uplinkAddress();
    if (source === undefined) return;
    const refused = changes.filter(({ name, from }) => from === undefined && name.startsWith('udp'));
    this.#tables.execute(
      refused.map(({ name }) => {
        const sourcePort = Number(name.split(' ')[1]);
        return deleteConnections('reply', { source, protocolNumber: protocolNumbers.udp, sourcePort });
      }),
    );
  }

  #change(messages: readonly NetlinkMessage[]): void {
    this.#changeTable(messages, () => this.#writeTable());
  }

  /** In one transaction: traffic sees the old table or the new one. */
  #writeTable(): void {
    const contents = { ports: this.#ports, open: this.#open };
    this.#tables.executeBatch(rulesetMessages(ingressRules[this.#family], elementsOf(contents, this.#sets)));
  }

  /** What is there already is only written again. */
  #configureReturn(): void {
    const gateway = this.#returnHop;
    this.#routes.execute([
      addPermanentNeighbour({ linkIndex: VXLAN_INDEX, address: gateway, macAddress: nodeMac(RETURN_HOP) }),
      addRoute({
        table: RETURN_TABLE,
        destination: Buffer.alloc(gateway.length),
        prefixLength: 0,
        linkIndex: VXLAN_INDEX,
        gateway,
        onlink: true,
      }),
    ]);
    const rule = {
      family: this.#family,
      isMarked: true,
      table: RETURN_TABLE,
      priority: RETURN_PRIORITY,
    } as const;
    ignoringErrno(EEXIST, () => this.#routes.execute([addRoutingRule(rule)]));
    this.#writeReturnChain();
  }

  get #returnHop(): Buffer {
    return nodeHop(RETURN_HOP, this.#family);
  }

  /** One for the packets of all families. */
  #writeReturnChain(): void {
    try {
      this.#tables.executeBatch(returnRuleset());
    } catch (error) {
      if (!(error instanceof SystemCallError) || ![EOPNOTSUPP, EINVAL].includes(error.errno)) throw error;
      throw new SwarmError(
        'failed-precondition',
        `Linux ${release()} of this node has no egress hook for packets of a link (netdev), so answers to clients of published ports cannot find their way back through the cluster`,
        {
          hint: 'Linux 5.16 and later have it. Networks without published ports, and ports in host mode, work all the same.',
          cause: error,
        },
      );
    }
  }

  #returnDrift(): Drift[] {
    const hasRule = this.#routes
      .dump(listRoutingRules(this.#family))
      .some(({ body }) => isMarkRule(body, RETURN_TABLE, RETURN_PRIORITY));
    const hasRoute = this.#routes
      .dump(listRoutes(this.#family))
      .map(({ body }) => decodeRoute(body))
      .some(
        ({ table, gateway, linkIndex }) =>
          table === RETURN_TABLE && linkIndex === VXLAN_INDEX && gateway?.equals(this.#returnHop) === true,
      );
    const hasNeighbour = this.#routes
      .dump(listNeighbours(this.#family))
      .map(({ body }) => decodeNeighbour(body))
      .some(
        ({ linkIndex, address, macAddress }) =>
          linkIndex === VXLAN_INDEX &&
          address.equals(this.#returnHop) &&
          macAddress.equals(nodeMac(RETURN_HOP)),
      );
    const parts = { rule: hasRule, route: hasRoute, neighbour: hasNeighbour, chain: this.#hasReturnChain() };
    return Object.entries(parts).flatMap(([name, isThere]): Drift[] =>
      isThere ? [] : [{ what: 'return', name, problem: 'missing' }],
    );
  }

  #hasReturnChain(): boolean {
    let count = 0;
    ignoringErrno(ENOENT, () => {
      count = this.#tables.dump(listRules(INGRESS_TABLE, 'netdev')).length;
    });
    return count === 1;
  }
}

function elementsOf({ ports, open }: MeshContents, sets: BalanceSets): Elements<keyof typeof ingressSets> {
  const { chains, slots } = balanceElements(sets, ports);
  return { ports: chains, targets: slots, open: [...open].map(openElement) };
}

/** undefined when the table is missing, is of another program version, or contradicts itself. */
function readMesh(tables: NetlinkSocket, family: IpFamily): MeshContents | undefined {
  return readRuleset(tables, ingressRules[family], (read) => {
    const ports = balancesIn(portSetsOf(family), {
      chains: read('ports'),
      empty: [],
      slots: read('targets'),
    });
    return ports === undefined ? undefined : { ports, open: new Set(read('open').map(openingIn)) };
  });
}

function openElement(opening: string): SetElement {
  return { key: openingKey(opening) };
}

function openingKey(opening: string): Buffer {
  const [address = '', protocol, port] = opening.split(' ') as [string, PortProtocol, string];
  return Buffer.concat([bytesOf(address), protocolPortKey(protocolNumbers[protocol], Number(port))]);
}

function openingIn({ key }: SetElement): string {
  const end = key.length - PORT_KEY_BYTES;
  return `${addressText(key.subarray(0, end))} ${protocolIn(key, end)} ${key.readUInt16BE(end + 4)}`;
}

function addressOf(opening: string): string {
  return opening.split(' ')[0]!;
}

function protocolIn(key: Buffer, offset: number): string {
  const names = Object.keys(protocolNumbers) as PortProtocol[];
  return names.find((name) => protocolNumbers[name] === key[offset]) ?? String(key[offset]);
}

function setAsMap(names: Iterable<string>): Map<string, boolean> {
  return new Map([...names].map((name) => [name, true]));
}
