// Ends the UDP flows to backends that are about to go. The kernel can forget them "if no answer is on its way" only by
// looking at its whole table, that of all namespaces: 25 to 60 ms were measured with 250,000 connections. So all
// that wait are ended together: their flows are read once and marked, which are look-ups, and one look forgets what is marked.

import { setTimeout as delay } from 'node:timers/promises';
import {
  askForConnection,
  changeMark,
  decodeConnection,
  deleteConnection,
  deleteMarked,
  listConnections,
  replySourceOf,
  type TrackedConnection,
} from '../../linux/conntrack.ts';
import { SystemCallError } from '../../linux/libc.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import { NetlinkSocket, netlinkProtocols } from '../../linux/netlink-socket.ts';
import { Together } from '../../linux/together.ts';
import { addressText, familyOf } from '../ip-bytes.ts';
import { protocolNumbers } from '../port-holder.ts';
import { flowMarks } from './overlay-rulesets.ts';

/** A flow ends between an answer and the next question. What is not answered by then never is, or goes one way. */
const ANSWER_MS = 50;
/** A client that asks often may wait for an answer at any one look. */
const LOOKS = 2;
/** So many are asked about one by one, in some milliseconds; more are taken for still there. */
const ASKED_MAX = 500;
/** So many answers fit the socket when all of them fail. */
const MESSAGES_AT_ONCE = 1000;
const ENOENT = 2;

export class FlowEnder implements Disposable {
  readonly #socket: NetlinkSocket;
  readonly #addresses: Together<string>;

  /** In the network namespace of the caller. */
  constructor() {
    this.#socket = new NetlinkSocket(netlinkProtocols.netfilter);
    this.#addresses = new Together((addresses) => this.#endAll(new Set(addresses)));
  }

  /**
   * The addresses get no new flows any more. Resolves when those that this network has translated to them have ended. What
   * comes while others are ended is next, together.
   */
  end(addresses: readonly string[]): Promise<void> {
    return this.#addresses.add(addresses);
  }

  /** The number of an open socket may not be given to another file while the kernel works with it. */
  [Symbol.dispose](): void {
    void this.#addresses.close().then(() => this.#socket[Symbol.dispose]());
  }

  async #endAll(addresses: ReadonlySet<string>): Promise<void> {
    let flows = await this.#flowsTo(addresses);
    await this.#execute(flows.map((flow) => changeMark(flow, flowMarks.ending)));
    for (let look = 0; look < LOOKS && flows.length > 0; look++) {
      if (look > 0) await delay(ANSWER_MS);
      await this.#execute([deleteMarked(flowMarks.endingAnswered)]);
      if (flows.length <= ASKED_MAX) flows = flows.filter((flow) => this.#isThere(flow));
    }
    if (flows.length === 0) return;
    await delay(ANSWER_MS);
    await this.#execute(flows.map(deleteConnection));
  }

  async #flowsTo(addresses: ReadonlySet<string>): Promise<TrackedConnection[]> {
    const flows: TrackedConnection[] = [];
    for (const family of new Set(Array.from(addresses, familyOf))) {
      const list = listConnections(family, protocolNumbers.udp, flowMarks.translated);
      await this.#socket.dumpAside(list, ({ body }) => {
        // The memory of an entry is that of the whole part.
        if (addresses.has(addressText(replySourceOf(body)))) flows.push(decodeConnection(Buffer.from(body)));
      });
    }
    return flows;
  }

  /** Flows that have ended meanwhile are fine. */
  async #execute(messages: readonly NetlinkMessage[]): Promise<void> {
    for (let start = 0; start < messages.length; start += MESSAGES_AT_ONCE)
      await this.#socket.executeAside(messages.slice(start, start + MESSAGES_AT_ONCE), ENOENT);
  }

  /** The client's next question may have made another one with the same addresses and ports. */
  #isThere(flow: TrackedConnection): boolean {
    try {
      return decodeConnection(this.#socket.ask(askForConnection(flow)).body).id.equals(flow.id);
    } catch (error) {
      if (error instanceof SystemCallError && error.errno === ENOENT) return false;
      throw error;
    }
  }
}
