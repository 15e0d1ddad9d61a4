// What the managers said of the networks, for the next process of this node: the whole, then each message since then. It is
// written before the kernel hears of it, so a process that is killed leaves nothing behind that the next one does not know.
//
// Each record is its length (4 bytes, big-endian) and an `Assignments` of networks and nodes only. Nothing is synced: after
// a power cut the networks are gone as well.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../core/errors.ts';
import { type Assignments, AssignmentsCodec, emptyAssignments } from '../../proto/generated/dispatcher.ts';
import { decode, encode } from '../../proto/wire.ts';
import type { Logger } from '../../rpc/logger.ts';

const LENGTH_BYTES = 4;
/** Messages may take as much as the whole again, and at least this. */
const MESSAGES_MIN_BYTES = 256 * 1024;

export class NetworkMemory {
  readonly #file: string;
  readonly #logger: Logger;
  /** -1: nothing whole has been written. */
  #wholeBytes = -1;
  #messagesBytes = 0;

  constructor(file: string, logger: Logger) {
    this.#file = file;
    this.#logger = logger;
  }

  /** In their order. A lost or broken memory costs the time until a manager answers. */
  recall(): Assignments[] {
    const said: Assignments[] = [];
    try {
      const bytes = readFileSync(this.#file);
      for (let at = 0; at + LENGTH_BYTES <= bytes.length; ) {
        const from = at + LENGTH_BYTES;
        at = from + bytes.readUInt32BE(at);
        // The last one was being written when its process was killed.
        if (at <= bytes.length) said.push(decode(AssignmentsCodec, bytes.subarray(from, at)));
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#logger.warn({ error: messageOf(error) }, 'cannot read what was known of the networks');
    }
    return said;
  }

  /** `whole` is all that is known, this message included. */
  note(
    { networks, removedNetworkIds, nodes, removedNodeIds, complete }: Assignments,
    whole: () => Assignments,
  ) {
    if (!complete && networks.length + removedNetworkIds.length + nodes.length + removedNodeIds.length === 0)
      return;
    try {
      if (
        complete ||
        this.#messagesBytes >= Math.max(this.#wholeBytes, MESSAGES_MIN_BYTES) ||
        this.#wholeBytes < 0
      )
        this.#rewrite(recordOf(whole()));
      else {
        const said = recordOf({ ...emptyAssignments, networks, removedNetworkIds, nodes, removedNodeIds });
        writeFileSync(this.#file, said, { flag: 'a' });
        this.#messagesBytes += said.length;
      }
    } catch (error) {
      // What is half written would hide all that follows.
      this.#wholeBytes = -1;
      this.#logger.warn({ error: messageOf(error) }, 'cannot write down what is known of the networks');
    }
  }

  #rewrite(whole: Buffer): void {
    const fresh = `${this.#file}.new`;
    writeFileSync(fresh, whole, { mode: 0o600 });
    renameSync(fresh, this.#file);
    this.#wholeBytes = whole.length;
    this.#messagesBytes = 0;
  }
}

function recordOf(said: Assignments): Buffer {
  const bytes = encode(AssignmentsCodec, said);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
