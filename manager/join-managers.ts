// A manager that is not in the consensus group, or not under its address, asks to be let in until it is. One that hears of no
// leader asks whether it still is: who was taken out of the group is not told so by it.

import { rm } from 'node:fs/promises';
import { type Clock, sleep } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { MembershipService } from '../proto/generated/membership.ts';
import type { Member } from '../proto/generated/raft.ts';
import { type Channel, createClient, withChannel } from '../rpc/client.ts';
import { managerLog } from './log.ts';
import type { RaftStatus } from './raft-host/host-options.ts';

export interface StayMemberOptions {
  /** Undefined where managers keep the state elsewhere. */
  readonly status: () => RaftStatus | undefined;
  readonly nodeId: string;
  /** host:port by which the others reach this one. */
  readonly advertiseAddress: string;
  /** host:port of managers from before this one knew the group. */
  readonly managers: readonly string[];
  readonly connect: (address: string) => Channel;
  readonly clock: Clock;
  readonly onProblem: (problem: string) => void;
  /** Told who manages the cluster by now. */
  readonly onVouched: (managers: VouchedManagers) => void;
}

/** Who the other managers say are managers. The own state knows better as soon as it has this entry of the log. */
export interface VouchedManagers {
  readonly nodeIds: ReadonlySet<string>;
  readonly index: number;
}

/** This manager was taken out of the group while it should be in it: it has to begin anew, as another member. */
export class TakenOutError extends SwarmError {
  constructor() {
    super('failed-precondition', 'this manager was taken out of the group; it begins anew as another member');
  }
}

const RETRY_MS = 1_000;
// The leader lets a manager count only when it has caught up, which may take as long as copying the whole state.
const CALL_LIMIT_MS = 10 * 60_000;
const LOOK_MS = 500;
// More than two elections: nobody leads, or nobody tells this manager.
const LEADERLESS_MS = 5_000;

/** Runs until the signal aborts. Throws TakenOutError. */
export async function stayMember(options: StayMemberOptions, signal: AbortSignal): Promise<void> {
  const { clock, status } = options;
  let leaderSeenMs = clock.nowMs();
  for (let isFirst = true; !signal.aborted; isFirst = false) {
    const now = status();
    if (now === undefined ? isFirst : !isInGroup(options, now)) await askToJoin(options, signal);
    else if (now !== undefined && now.leaderId === 0 && clock.nowMs() - leaderSeenMs > LEADERLESS_MS)
      await askToJoin(options, signal);
    if (now?.leaderId !== 0) leaderSeenMs = clock.nowMs();
    await sleep(clock, LOOK_MS, signal).catch(() => {});
  }
}

/** For the next start of a manager that was taken out. */
export async function beginAnew(logDirectory: string): Promise<void> {
  managerLog.warn('the log of a member that was taken out of the group is removed');
  await rm(logDirectory, { recursive: true, force: true });
}

function isInGroup({ advertiseAddress }: StayMemberOptions, { self, configuration }: RaftStatus): boolean {
  const { voters, members } = configuration;
  const known = members.find(({ id }) => id === self.id);
  return known?.address === advertiseAddress && voters.includes(self.id);
}

/** Returns when this manager counts, or the signal has aborted. */
async function askToJoin(options: StayMemberOptions, signal: AbortSignal): Promise<void> {
  const { clock, nodeId, advertiseAddress, status, onProblem } = options;
  const member = { id: status()?.self.id ?? 0, nodeId, address: advertiseAddress };
  for (let attempt = 0; !signal.aborted; attempt++) {
    const others = addressesOfOthers(options);
    const address = others[attempt % Math.max(1, others.length)];
    // The first manager has nobody to ask.
    if (address === undefined) return;
    try {
      if (await ask(options, member, address, signal)) throw new TakenOutError();
      onProblem('');
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof TakenOutError) throw error;
      onProblem(`it cannot join the managers: ${messageOf(error)}`);
      managerLog.warn(
        { address, error: messageOf(error), 'raft.member': member.id },
        'cannot join the managers, will retry',
      );
      await sleep(clock, RETRY_MS, signal).catch(() => {});
    }
  }
}

function addressesOfOthers({ status, managers, advertiseAddress }: StayMemberOptions): string[] {
  const members = status()?.configuration.members ?? [];
  const addresses = new Set([...members.map(({ address }) => address), ...managers]);
  addresses.delete(advertiseAddress);
  return [...addresses];
}

/** True when the member was removed. */
async function ask(
  { connect, onVouched }: StayMemberOptions,
  member: Member,
  address: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { removed, managers, index } = await withChannel(connect(address), (channel) =>
    createClient(MembershipService, channel).joinManagers({ member }, { signal, timeoutMs: CALL_LIMIT_MS }),
  );
  onVouched({ nodeIds: new Set(managers), index });
  return removed;
}
