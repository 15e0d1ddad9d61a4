// Who takes part, what a change of that does, and what a majority is. Pure functions over Configuration.
// A change of one voter goes directly from one majority to the other, which overlap; anything more goes through a
// joint configuration, where both majorities are needed (thesis §4.3).

import { invalidField, SwarmError } from '../../core/errors.ts';
import {
  type Configuration,
  type ConfigurationChange,
  type ConfigurationStep,
  emptyConfiguration,
  type Member,
} from '../../proto/generated/raft.ts';
import type { MemberId } from './message.ts';

/** A configuration of voters only, as a cluster begins. */
export function initialConfiguration(members: readonly Member[]): Configuration {
  return { ...emptyConfiguration, voters: members.map(({ id }) => id).sort(ascending), members };
}

export function isJoint(configuration: Configuration): boolean {
  return configuration.outgoingVoters.length > 0;
}

export function isVoter({ voters, outgoingVoters }: Configuration, id: MemberId): boolean {
  return voters.includes(id) || outgoingVoters.includes(id);
}

/** Everybody who gets the log: voters, leaving voters and learners, in order. */
export function participants(configuration: Configuration): MemberId[] {
  const { voters, outgoingVoters, learners } = configuration;
  return [...new Set([...voters, ...outgoingVoters, ...learners])].sort(ascending);
}

/**
 * The configuration after a change. Throws `invalid-argument` or `failed-precondition` for one that cannot be:
 * removed ids do not return, the last voter stays, a joint configuration must be left before the next change.
 */
export function applyChange(configuration: Configuration, change: ConfigurationChange): Configuration {
  if (change.steps.length === 0) return leaveJoint(configuration);
  if (isJoint(configuration))
    throw new SwarmError('failed-precondition', 'the last change of members is not finished yet');
  const after = change.steps.reduce(applyStep, configuration);
  if (after.voters.length === 0)
    throw new SwarmError('failed-precondition', 'the last voter cannot leave: no manager would be left');
  if (voterDifference(configuration, after) <= 1) return withMembers(demoteAtOnce(after), configuration);
  return withMembers({ ...after, outgoingVoters: configuration.voters }, configuration);
}

/** True when at least a majority of every set of voters is `agreed`. */
export function hasQuorum(configuration: Configuration, agreed: (id: MemberId) => boolean): boolean {
  return (
    isMajority(configuration.voters, agreed) &&
    (!isJoint(configuration) || isMajority(configuration.outgoingVoters, agreed))
  );
}

/** The largest index that a quorum has, given what each voter has. */
export function quorumIndex(configuration: Configuration, matchOf: (id: MemberId) => number): number {
  const index = majorityIndex(configuration.voters, matchOf);
  return isJoint(configuration)
    ? Math.min(index, majorityIndex(configuration.outgoingVoters, matchOf))
    : index;
}

function isMajority(voters: readonly MemberId[], agreed: (id: MemberId) => boolean): boolean {
  let count = 0;
  for (const id of voters) if (agreed(id)) count++;
  return count > voters.length / 2;
}

function majorityIndex(voters: readonly MemberId[], matchOf: (id: MemberId) => number): number {
  const sorted = voters.map(matchOf).sort((a, b) => b - a);
  return sorted[Math.floor(voters.length / 2)] ?? 0;
}

function applyStep(configuration: Configuration, { kind, member }: ConfigurationStep): Configuration {
  const { id } = member;
  if (!Number.isSafeInteger(id) || id <= 0)
    throw invalidField('member.id', `${id} is not a positive integer`);
  const { members, removed } = configuration;
  const isMember = members.some((other) => other.id === id);
  const without = (list: readonly MemberId[]) => list.filter((other) => other !== id);
  const including = (list: readonly MemberId[]) => [...without(list), id].sort(ascending);
  const voters = without(configuration.voters);
  const learners = without(configuration.learners);
  const learnersNext = without(configuration.learnersNext);
  if (removed.includes(id))
    throw new SwarmError('failed-precondition', `member ${id} was removed and cannot return`, {
      hint: 'It joins again as a new member, with a new id.',
    });
  if (kind === 'add-voter' || kind === 'add-learner') {
    const others = members.filter((other) => other.id !== id);
    const base = { ...configuration, voters, learners, learnersNext, members: [...others, member] };
    if (kind === 'add-voter') return { ...base, voters: including(voters) };
    const wasVoter = configuration.voters.includes(id);
    // A voter becomes a learner only when its vote is no longer needed.
    return wasVoter
      ? { ...base, learnersNext: including(learnersNext) }
      : { ...base, learners: including(learners) };
  }
  if (!isMember) throw new SwarmError('not-found', `member ${id} is not part of the cluster`);
  const others = members.filter((other) => other.id !== id);
  if (kind === 'move') return { ...configuration, members: [...others, member] };
  return {
    ...configuration,
    voters,
    learners,
    learnersNext,
    members: others,
    removed: [...removed, id],
  };
}

function leaveJoint(configuration: Configuration): Configuration {
  if (!isJoint(configuration)) return configuration;
  const after = demoteAtOnce({ ...configuration, outgoingVoters: [] });
  const stay = participants(after);
  return { ...after, members: after.members.filter(({ id }) => stay.includes(id)) };
}

function demoteAtOnce(configuration: Configuration): Configuration {
  const { learners, learnersNext } = configuration;
  return { ...configuration, learners: [...learners, ...learnersNext].sort(ascending), learnersNext: [] };
}

/** Members in order of their id; those who leave a joint configuration are reachable until it is left. */
function withMembers(after: Configuration, before: Configuration): Configuration {
  const leaving = before.members.filter(
    ({ id }) => after.outgoingVoters.includes(id) && !after.members.some((member) => member.id === id),
  );
  const members = [...after.members, ...leaving].sort((a, b) => a.id - b.id);
  return { ...after, members };
}

function voterDifference(before: Configuration, after: Configuration): number {
  const added = after.voters.filter((id) => !before.voters.includes(id)).length;
  const gone = before.voters.filter((id) => !after.voters.includes(id)).length;
  return added + gone;
}

function ascending(a: number, b: number): number {
  return a - b;
}
