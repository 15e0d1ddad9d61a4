// What must hold of configurations, said anew: nothing here uses the functions that it judges.

import type { Configuration } from '../../proto/generated/raft.ts';

type Ids = readonly number[];

/** True when a majority of every set of voters is `agreed`. */
export function isQuorum(
  { voters, outgoingVoters }: Configuration,
  agreed: (id: number) => boolean,
): boolean {
  const isMajority = (ids: Ids) => ids.filter(agreed).length * 2 > ids.length;
  return isMajority(voters) && (outgoingVoters.length === 0 || isMajority(outgoingVoters));
}

export function votes({ voters, outgoingVoters }: Configuration, id: number): boolean {
  return voters.includes(id) || outgoingVoters.includes(id);
}

/** What is wrong with a configuration by itself, or undefined. */
export function problemOf(configuration: Configuration): string | undefined {
  const { voters, outgoingVoters, learners, learnersNext, members, removed } = configuration;
  if (voters.length === 0) return 'nobody votes';
  for (const id of learners) if (votes(configuration, id)) return `learner ${id} votes`;
  for (const id of learnersNext)
    if (!outgoingVoters.includes(id) || voters.includes(id))
      return `${id} becomes a learner, but never voted`;
  for (const id of removed)
    if (voters.includes(id) || learners.includes(id)) return `removed member ${id} is back`;
  const known = new Set(members.map(({ id }) => id));
  for (const id of [...voters, ...outgoingVoters, ...learners])
    if (!known.has(id)) return `nobody knows the address of member ${id}`;
  return undefined;
}

/** Why `after` may not follow `before`, or undefined: every quorum of one must meet every quorum of the other. */
export function problemBetween(before: Configuration, after: Configuration): string | undefined {
  const isSame = (a: Ids, b: Ids) => [...a].sort().join() === [...b].sort().join();
  if (before.removed.some((id) => !after.removed.includes(id))) return 'a removed id is forgotten';
  if (before.outgoingVoters.length > 0)
    return isSame(before.voters, after.voters) && after.outgoingVoters.length === 0
      ? undefined
      : 'a joint configuration is left for another than its own';
  if (after.outgoingVoters.length > 0)
    return isSame(after.outgoingVoters, before.voters)
      ? undefined
      : 'a joint configuration does not know who voted before';
  const added = after.voters.filter((id) => !before.voters.includes(id));
  const gone = before.voters.filter((id) => !after.voters.includes(id));
  return added.length + gone.length <= 1 ? undefined : 'two voters change at once';
}
