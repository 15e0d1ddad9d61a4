// A manager that is not (or not any more under its address) in the consensus group asks to be let in, again and again until it is.

import { type Clock, sleep } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { MembershipService } from '../proto/generated/membership.ts';
import type { Member } from '../proto/generated/raft.ts';
import { type Channel, createClient, withChannel } from '../rpc/client.ts';
import { managerLog } from './log.ts';

export interface JoinManagersOptions {
  readonly member: Member;
  /** host:port of managers; one that leads or knows who does is enough. */
  readonly managers: readonly string[];
  readonly connect: (address: string) => Channel;
  readonly clock: Clock;
  readonly onProblem: (problem: string) => void;
}

const RETRY_MS = 1_000;
// The leader lets a manager count only when it has caught up, which may take as long as copying the whole state.
const CALL_LIMIT_MS = 10 * 60_000;

/** Returns when this manager counts, or the signal has aborted. */
export async function joinManagers(options: JoinManagersOptions, signal: AbortSignal): Promise<void> {
  const { member, managers, clock, onProblem } = options;
  for (let attempt = 0; !signal.aborted; attempt++) {
    const address = managers[attempt % Math.max(1, managers.length)];
    try {
      if (address === undefined) throw new SwarmError('failed-precondition', 'it knows no other manager');
      await ask(options, address, signal);
      onProblem('');
      return;
    } catch (error) {
      if (signal.aborted) return;
      onProblem(`it cannot join the managers: ${messageOf(error)}`);
      managerLog.warn(
        { address, error: messageOf(error), 'raft.member': member.id },
        'cannot join the managers, will retry',
      );
      await sleep(clock, RETRY_MS, signal).catch(() => {});
    }
  }
}

async function ask(
  { member, connect }: JoinManagersOptions,
  address: string,
  signal: AbortSignal,
): Promise<void> {
  await withChannel(connect(address), (channel) =>
    createClient(MembershipService, channel).joinManagers({ member }, { signal, timeoutMs: CALL_LIMIT_MS }),
  );
}
