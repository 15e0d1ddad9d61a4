// The firewall tables of the node-local network, of each family that it has: in the host's namespace and in the network's
// own. Which ports they publish follows from the records of endpoints.

import { defined } from '../../core/assert.ts';
import type { Logger } from '../../rpc/logger.ts';
import { deleteConnections } from '../linux/conntrack.ts';
import { type IpFamily, ipFamilies } from '../linux/ip-family.ts';
import { SystemCallError } from '../linux/libc.ts';
import type { NetlinkMessage } from '../linux/netlink.ts';
import {
  addElements,
  deleteElements,
  portField,
  protocolPortKey,
  type SetElement,
} from '../linux/nftables-maps.ts';
import { bytesOf } from './ip-bytes.ts';
import { protocolNumbers } from './port-holder.ts';
import type { EndpointRecord } from './records.ts';
import {
  hostRuleset,
  isHostTableRight,
  NETWORK_TABLE,
  networkRuleset,
  PUBLISHED_PORTS_MAP,
} from './rulesets.ts';
import type { Wiring } from './wiring.ts';

export interface PortTablesOptions {
  readonly wiring: Wiring;
  readonly hostTable: string;
  readonly uplinkName: string;
  /** Endpoints whose ports are published. */
  readonly published: () => readonly EndpointRecord[];
  readonly logger: Logger;
}

type Port = EndpointRecord['ports'][number];

export class PortTables {
  readonly #options: PortTablesOptions;

  constructor(options: PortTablesOptions) {
    this.#options = options;
  }

  /** Inside first, so that the host never sends to a port that the network does not know yet. */
  publish(record: EndpointRecord): void {
    if (record.ports.length === 0) return;
    const { hostTable, wiring } = this.#options;
    const families = this.#familiesOf(record);
    this.#change(
      families.flatMap((family) =>
        addElements(NETWORK_TABLE, PUBLISHED_PORTS_MAP, networkElements(record, family), family),
      ),
      families.flatMap((family) =>
        addElements(hostTable, PUBLISHED_PORTS_MAP, this.#hostElements(record, family), family),
      ),
    );
    // A UDP client that was already sending would go on to reach nothing: its flow is known as not translated.
    const udpPorts = record.ports.filter(({ protocol }) => protocol === 'udp');
    wiring.hostTables.execute(
      families.flatMap((family) =>
        udpPorts.map(({ publishedPort: destinationPort }) =>
          deleteConnections('original', { family, protocolNumber: protocolNumbers.udp, destinationPort }),
        ),
      ),
    );
  }

  unpublish(record: EndpointRecord): void {
    if (record.ports.length === 0) return;
    const keys = record.ports.map(portKey);
    const remove = (table: string) =>
      this.#familiesOf(record).flatMap((family) => deleteElements(table, PUBLISHED_PORTS_MAP, keys, family));
    this.#change(remove(NETWORK_TABLE), remove(this.#options.hostTable));
  }

  /** Each table is replaced in one transaction: traffic sees the old one or the new one. */
  write(): void {
    const { wiring, hostTable, uplinkName } = this.#options;
    for (const family of this.#families) {
      const records = this.#published(family);
      const inside = records.flatMap((record) => networkElements(record, family));
      const outside = records.flatMap((record) => this.#hostElements(record, family));
      wiring.networkTables.executeBatch(networkRuleset(family, inside));
      wiring.hostTables.executeBatch(hostRuleset(hostTable, uplinkName, family, outside));
    }
  }

  /** Of the host's tables: the network's namespace is nobody else's. */
  get areRight(): boolean {
    const { wiring, hostTable, uplinkName } = this.#options;
    return this.#families.every((family) => {
      const count = this.#published(family).flatMap(({ ports }) => ports).length;
      return isHostTableRight(wiring.hostTables, hostTable, uplinkName, family, count);
    });
  }

  /** Of an endpoint that is gone. */
  forgetConnections(record: EndpointRecord): void {
    const { wiring } = this.#options;
    for (const family of this.#familiesOf(record)) {
      const source = addressIn(record, family);
      wiring.networkTables.execute([
        deleteConnections('reply', { source }),
        deleteConnections('original', { source }),
      ]);
      wiring.hostTables.execute(
        record.ports.map(({ protocol, publishedPort: sourcePort }) =>
          deleteConnections('reply', {
            source: this.#uplinkAddress(family),
            protocolNumber: protocolNumbers[protocol],
            sourcePort,
          }),
        ),
      );
    }
  }

  get #families(): IpFamily[] {
    const families = Object.keys(ipFamilies) as IpFamily[];
    return families.filter((family) => this.#options.wiring.uplinkAddress(family) !== undefined);
  }

  #familiesOf(record: EndpointRecord): IpFamily[] {
    return this.#families.filter((family) => family === 'ipv4' || record.ipv6Address !== undefined);
  }

  #published(family: IpFamily): EndpointRecord[] {
    return this.#options.published().filter((record) => this.#familiesOf(record).includes(family));
  }

  #uplinkAddress(family: IpFamily): Buffer {
    return defined(this.#options.wiring.uplinkAddress(family), `the local network has no ${family}`);
  }

  /** When the tables are not what they should be (`nft flush ruleset`), they are written anew. */
  #change(network: readonly NetlinkMessage[], host: readonly NetlinkMessage[]): void {
    const { wiring, logger } = this.#options;
    try {
      wiring.networkTables.executeBatch(network);
      wiring.hostTables.executeBatch(host);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      logger.warn({ error: error.message }, 'repairing the firewall tables of the local network');
      this.write();
    }
  }

  #hostElements(record: EndpointRecord, family: IpFamily): SetElement[] {
    const target = this.#uplinkAddress(family);
    return record.ports.map((port) => ({
      key: portKey(port),
      value: Buffer.concat([target, portField(port.publishedPort)]),
    }));
  }
}

function networkElements(record: EndpointRecord, family: IpFamily): SetElement[] {
  const address = addressIn(record, family);
  return record.ports.map((port) => ({
    key: portKey(port),
    value: Buffer.concat([address, portField(port.targetPort)]),
  }));
}

function addressIn({ address, ipv6Address }: EndpointRecord, family: IpFamily): Buffer {
  return bytesOf(family === 'ipv4' ? address : defined(ipv6Address, `${address} has no ${family}`));
}

function portKey({ protocol, publishedPort }: Port): Buffer {
  return protocolPortKey(protocolNumbers[protocol], publishedPort);
}
