// What a cluster owes once the faults end: progress, for all when everything works again (L1), and for a quorum that is
// whole while the rest stays broken (L2); and a leader that nobody has a reason to replace stays (L3).

import { isJoint, participants } from '../../manager/raft/configuration.ts';
import type { Configuration } from '../../proto/generated/raft.ts';
import { isQuorum } from './configuration-checks.ts';
import { check } from './core-checks.ts';
import type { CoreMember } from './core-member.ts';
import type { CoreWorld } from './core-world.ts';

/** Rounds of fair delivery in which the first write has to succeed: some election timeouts. */
const ROUNDS_MAX = 400;
/** Rounds after which a client tries again elsewhere. */
const PATIENCE_ROUNDS = 25;
/** More calls than a window has room for: what is never freed shows. */
const CALLS = 10;
const CALM_ROUNDS = 40;

/** Everything works again: every call is answered, everybody gets everything, changes of members end. */
export function checkHealed(world: CoreWorld): void {
  world.tell(() => 'everything works again');
  world.network.unblock();
  wake(world, world.members);
  untilAnswered(world, 'L1', 'read', 1);
  rounds(world, 'L1', () => isSettled(world));
  untilAnswered(world, 'L1', 'write', CALLS);
  rounds(world, 'L1', () => isSettled(world));
  for (const member of world.members) world.checks.stateAt(member.id, member.appliedIndex, member.registers);
  if (world.chance() < 0.3) checkStays(world);
}

/**
 * A quorum works and its members hear each other; the others are down, deaf, mute, or reach only some. Only where all
 * who take part agree on who they are: otherwise it is not said which quorum is needed.
 */
export function checkQuorumCore(world: CoreWorld): void {
  const configuration = agreedConfiguration(world);
  if (configuration === undefined) return;
  const outsiders = drawOutsiders(world, configuration);
  if (outsiders.length === 0) return;
  const core = world.members.filter((member) => !outsiders.includes(member));
  world.network.unblock();
  wake(world, core);
  for (const outsider of outsiders) breakLinks(world, outsider, core);
  untilAnswered(world, 'L2', 'write', 1);
}

/**
 * A leader that a quorum hears stays, though somebody else does not hear it for a while, and stands for election when
 * it does not, and comes back. All logs are equal: nobody is refused for what it lacks.
 */
function checkStays(world: CoreWorld): void {
  const { network } = world;
  for (let round = 0; round < CALM_ROUNDS; round++) world.fairRound();
  const leader = world.leader();
  const others = world.members.filter((member) => member !== leader);
  if (leader?.raft === undefined || others.length < 2) return;
  const { term, configuration } = leader.raft;
  const stranger = world.pick(others);
  const isAlone = world.chance() < 0.5;
  if (!isQuorum(configuration, (id) => id !== stranger.id)) return;
  world.tell(() => `${stranger.id} does not hear ${isAlone ? 'anybody' : 'the leader'}`);
  for (const { id } of isAlone ? world.members : [leader]) {
    network.block(id, stranger.id);
    if (isAlone) network.block(stranger.id, id);
  }
  for (let round = 0; round < CALM_ROUNDS; round++) world.fairRound();
  network.unblock();
  for (let round = 0; round < CALM_ROUNDS / 2; round++) world.fairRound();
  const after = world.leader();
  const stayed = after === leader && after.raft?.term === term;
  check(
    stayed,
    'L3',
    `${leader.id} led term ${term}; without a reason ${after?.id} leads ${after?.raft?.term}`,
  );
}

function wake(world: CoreWorld, members: readonly CoreMember[]): void {
  world.network.release(Number.POSITIVE_INFINITY);
  world.clients.giveUp();
  for (const member of members) {
    member.pausedUntil = 0;
    member.slowUntil = 0;
    member.stalledUntil = 0;
    if (!member.isUp) member.start();
  }
}

/** Calls the leader until `count` calls are answered. Reads must not need an entry of a client before. */
function untilAnswered(world: CoreWorld, rule: string, kind: 'read' | 'write', count: number): void {
  const { clients } = world;
  clients.giveUp();
  let since = 0;
  rounds(world, rule, () => {
    if (clients.doneSinceHeal >= count) return true;
    if (clients.isBusy && ++since < PATIENCE_ROUNDS) return false;
    const done = clients.doneSinceHeal;
    clients.giveUp();
    clients.doneSinceHeal = done;
    since = 0;
    const leader = world.leader();
    if (leader === undefined) return false;
    clients[kind](leader, 0);
    return false;
  });
}

function rounds(world: CoreWorld, rule: string, isDone: () => boolean): void {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    world.fairRound();
    if (isDone()) return;
  }
  check(false, rule, `no progress within ${ROUNDS_MAX} rounds after the faults ended`);
}

/** Everybody who takes part has applied everything, and no change of members is half done. */
function isSettled(world: CoreWorld): boolean {
  const raft = world.leader()?.raft;
  if (raft === undefined || isJoint(raft.configuration)) return false;
  return participants(raft.configuration).every(
    (id) => world.memberOf(id)?.appliedIndex === raft.log.lastIndex,
  );
}

function agreedConfiguration(world: CoreWorld): Configuration | undefined {
  let newest: CoreMember | undefined;
  for (const member of world.members)
    if (member.isUp && member.appliedIndex > (newest?.appliedIndex ?? 0)) newest = member;
  const configuration = newest?.raft?.configuration;
  if (configuration === undefined) return undefined;
  const text = JSON.stringify(configuration);
  const isAgreed = participants(configuration).every((id) => {
    const member = world.memberOf(id);
    if (member?.raft === undefined || JSON.stringify(member.raft.configuration) !== text) return false;
    const { log } = member.raft;
    const open = log.slice(log.handedOutIndex + 1, log.lastIndex, Number.POSITIVE_INFINITY) ?? [];
    return !open.some(({ kind }) => kind === 'configuration');
  });
  return isAgreed ? configuration : undefined;
}

/** As many as a quorum can do without; often the leader is one of them. */
function drawOutsiders(world: CoreWorld, configuration: Configuration): CoreMember[] {
  const outsiders = world.members.filter(({ id }) => !participants(configuration).includes(id));
  const leader = world.leader();
  const candidates = world.members.filter((member) => !outsiders.includes(member));
  if (leader !== undefined && world.chance() < 0.5) candidates.unshift(leader);
  for (const member of candidates) {
    if (member !== leader && world.chance() < 0.4) continue;
    const isEnough = isQuorum(
      configuration,
      (id) => id !== member.id && !outsiders.some((out) => out.id === id),
    );
    if (isEnough && !outsiders.includes(member)) outsiders.push(member);
  }
  return outsiders;
}

function breakLinks(world: CoreWorld, outsider: CoreMember, core: readonly CoreMember[]): void {
  const { network } = world;
  const kind = world.pick(['down', 'deaf', 'mute', 'partial'] as const);
  world.tell(() => `${outsider.id} is ${kind}`);
  if (kind === 'down' && outsider.isUp) outsider.crash(0);
  if (kind !== 'down') wake(world, [outsider]);
  for (const { id } of core) {
    const isCut = kind === 'partial' && world.chance() < 0.6;
    if (kind === 'deaf' || isCut) network.block(id, outsider.id);
    if (kind === 'mute' || isCut) network.block(outsider.id, id);
  }
}
