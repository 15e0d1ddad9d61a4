// What goes wrong in a simulated cluster, and what operators do to it meanwhile. Every seed draws its own mix, so that
// some runs are nearly calm and others are torn apart; faults prefer the leader.

import { SwarmError } from '../../core/errors.ts';
import { isJoint, participants } from '../../manager/raft/configuration.ts';
import type { Raft } from '../../manager/raft/raft.ts';
import type { ConfigurationStep, ConfigurationStepKind, RaftMessage } from '../../proto/generated/raft.ts';
import { aMember, type CoreMember } from './core-member.ts';
import { IDS_MAX } from './core-network.ts';
import type { CoreWorld } from './core-world.ts';

const PARTICIPANTS_MAX = 7;
const VOTING_TURNS_MAX = 50;
const VOTING = new Set(['pre-vote', 'pre-vote-response', 'vote', 'vote-response']);

/** How often things go wrong in one run. */
export interface FaultMix {
  /** Per message. */
  readonly loss: number;
  readonly duplication: number;
  readonly delay: number;
  /** Weights among faults. */
  readonly faults: readonly (readonly [weight: number, inject: (world: CoreWorld) => void])[];
  readonly faultsTotal: number;
  /** Weights of a disk write and of a tick against one call of a client or fault. */
  readonly disk: number;
  readonly tick: number;
  /** Part of the rest that clients have; faults have what they leave. */
  readonly calls: number;
}

export function drawMix(chance: () => number): FaultMix {
  const often = (most: number) => (chance() < 0.4 ? 0 : chance() * most);
  const faults: FaultMix['faults'] = [
    [often(0.2), crash],
    [0.1 + chance() * 0.2, restart],
    [often(0.15), partition],
    [0.05 + chance() * 0.15, heal],
    [often(0.1), jump],
    [often(0.1), pause],
    [often(0.15), usurp],
    [often(0.3), elect],
    [often(0.1), stallDisk],
    [0.05 + often(0.2), release],
    [often(0.8), changeMembers],
    [often(0.15), transfer],
    [0.05 + often(0.3), takeSnapshot],
    [often(0.1), loseConnection],
  ];
  return {
    loss: often(0.3),
    duplication: often(0.1),
    delay: often(0.1),
    faults,
    faultsTotal: faults.reduce((total, [weight]) => total + weight, 0),
    disk: 0.25 + chance() * 0.35,
    tick: 0.1 + chance() * 0.25,
    calls: 0.6 + chance() * 0.35,
  };
}

export function injectFault(world: CoreWorld): void {
  const { faults, faultsTotal } = world.mix;
  let draw = world.chance() * faultsTotal;
  for (const [weight, inject] of faults) {
    draw -= weight;
    if (draw >= 0) continue;
    inject(world);
    return;
  }
}

/** Often the leader. */
function victim(world: CoreWorld): CoreMember | undefined {
  if (world.chance() < 0.4) return world.leader();
  return world.pickRunning();
}

function crash(world: CoreWorld): void {
  const isEverybody = world.chance() < 0.05;
  const member = victim(world);
  const members = isEverybody ? world.members.filter(({ isUp }) => isUp) : [member];
  for (const one of members) {
    if (one === undefined) continue;
    const survivors = Math.floor(world.chance() * (one.pendingCount + 1));
    world.tell(() => `crash of ${one.id}: ${survivors} of ${one.pendingCount} writes survive`);
    one.crash(survivors);
    if (world.chance() < 0.5) one.start();
  }
}

function restart(world: CoreWorld): void {
  const member = world.members.find(({ isUp }) => !isUp && world.chance() < 0.5);
  if (member !== undefined) world.tell(() => `start of ${member.id}`);
  member?.start();
}

function partition(world: CoreWorld): void {
  const { network, members } = world;
  const alone = world.chance() < 0.5 ? victim(world) : undefined;
  const isInside = new Map(
    members.map(({ id }) => [id, alone === undefined ? world.chance() < 0.5 : id === alone.id]),
  );
  // Some partitions let messages through in one direction, some leave single links.
  const draw = world.chance();
  const holes = world.chance() < 0.3 ? 0.3 : 0;
  world.tell(
    () =>
      `partition: ${members.filter(({ id }) => isInside.get(id)).map(({ id }) => id)} apart, kind ${draw}`,
  );
  for (const from of members)
    for (const to of members) {
      const isOut = isInside.get(from.id) === true;
      if (isOut === isInside.get(to.id) || (draw < 0.2 && isOut) || (draw > 0.8 && !isOut)) continue;
      if (holes === 0 || world.chance() >= holes) network.block(from.id, to.id);
    }
}

function heal(world: CoreWorld): void {
  world.tell(() => 'all links work');
  world.network.unblock();
}

/** A stopped clock goes on, or time leaps: many ticks at once. */
function jump(world: CoreWorld): void {
  const member = victim(world);
  world.tell(() => `time leaps for ${member?.id}`);
  for (let ticks = 1 + world.chance() * 30; ticks > 0; ticks--) member?.raft?.tick();
  member?.drain();
}

/** The process stands still: no time passes for it, and what arrives has to wait. */
function pause(world: CoreWorld): void {
  const member = victim(world);
  if (member === undefined) return;
  member.pausedUntil = world.steps + Math.floor(world.chance() * 600);
  world.tell(() => `${member.id} stands still until ${member.pausedUntil}`);
}

/** The leader is cut off and its clock stands still: it goes on believing that it leads while others elect another. */
function usurp(world: CoreWorld): void {
  const leader = world.leader();
  if (leader === undefined) return;
  const { network, members } = world;
  leader.slowUntil = world.steps + 200 + Math.floor(world.chance() * 1000);
  world.tell(() => `${leader.id} is cut off, without a clock until ${leader.slowUntil}`);
  if (world.chance() < 0.5) network.holdAllTo(leader.id);
  const friend = world.chance() < 0.3 ? world.pick(members).id : 0;
  for (const { id, raft } of members) {
    if (id === leader.id || id === friend) continue;
    network.block(leader.id, id);
    if (world.chance() < 0.7) network.block(id, leader.id);
    for (let ticks = world.chance() * 30; ticks > 0; ticks--) raft?.tick();
  }
  for (const member of members) member.drain();
}

/**
 * Somebody is elected while nothing but votes gets through: logs of several leaders grow side by side. What the new
 * leader sends remains on its way, and often it is gone before much of that arrives.
 */
function elect(world: CoreWorld): void {
  // Whoever is about to lose its vote may not know it yet.
  const candidate = world.chance() < 0.4 ? world.memberOf(world.leavingId) : world.pickRunning();
  if (candidate?.raft === undefined) return;
  world.tell(() => `everybody votes, ${candidate.id} first`);
  for (const { raft } of world.members) raft?.forgetLeader();
  candidate.raft.campaign();
  candidate.drain();
  const isAbout = ({ type, from, to }: RaftMessage) =>
    VOTING.has(type) && (from === candidate.id || to === candidate.id);
  for (let turn = 0; turn < VOTING_TURNS_MAX && candidate.raft?.role.endsWith('candidate'); turn++) {
    if (world.deliverFirst(isAbout)) continue;
    for (const member of world.members) if (member.stalledUntil <= world.steps) member.completeWrite();
  }
  const draw = world.chance();
  if (draw < 0.3) candidate.crash(candidate.pendingCount);
  else if (draw < 0.6) {
    const friend = world.pick(world.members).id;
    for (const { id } of world.members)
      if (id !== friend && id !== candidate.id) world.network.block(candidate.id, id);
  }
}

function stallDisk(world: CoreWorld): void {
  const member = victim(world);
  if (member === undefined) return;
  member.stalledUntil = world.steps + Math.floor(world.chance() * 600);
  world.tell(() => `the disk of ${member.id} stands still until ${member.stalledUntil}`);
}

/** What was held back goes on, all at once or little by little. */
function release(world: CoreWorld): void {
  world.network.release(world.chance() < 0.2 ? 1000 : 3);
}

/** The transport closes: a follower knows at once that its leader is gone, a leader that a peer is. */
function loseConnection(world: CoreWorld): void {
  const writing = world.members.filter(({ pendingCount }) => pendingCount > 0);
  const member = writing.length > 0 && world.chance() < 0.5 ? world.pick(writing) : world.pickRunning();
  if (member?.raft === undefined) return;
  world.tell(() => `${member.id} loses a connection`);
  if (member.raft.role === 'leader') member.raft.reportUnreachable(world.pick(world.members).id);
  else {
    member.raft.forgetLeader();
    if (world.chance() < 0.5) member.raft.campaign();
  }
  member.drain();
}

function transfer(world: CoreWorld): void {
  const leader = world.members.find(({ raft }) => raft?.role === 'leader');
  const voters = leader?.raft?.configuration.voters.filter((id) => id !== leader.id) ?? [];
  if (leader?.raft === undefined || voters.length === 0) return;
  // The youngest may not even know yet that it has a vote.
  const to = world.chance() < 0.4 ? Math.max(...voters) : world.pick(voters);
  world.tell(() => `${leader.id} hands leadership to ${to}`);
  leader.raft.transferLeadership(to);
  leader.drain();
}

function takeSnapshot(world: CoreWorld): void {
  const member = victim(world);
  const keep = world.pick([0, 0, 1, 3, 5]);
  member?.snapshotStep(keep);
  if (world.chance() < 0.5) member?.snapshotStep(keep);
}

function changeMembers(world: CoreWorld): void {
  const leader = world.members.find(({ raft }) => raft?.role === 'leader' && world.chance() < 0.8);
  if (leader?.raft === undefined || isJoint(leader.raft.configuration)) return;
  const { raft } = leader;
  if (world.chance() < 0.1) comeBack(world, raft);
  const count = world.chance() < 0.7 ? 1 : 2;
  const steps: ConfigurationStep[] = [];
  for (let drawn = 0; drawn < count; drawn++) {
    const step = drawStep(world, raft);
    if (step !== undefined && !steps.some(({ member }) => member.id === step.member.id)) steps.push(step);
  }
  const { voters } = raft.configuration;
  const leaving = steps.filter(({ kind, member }) => kind !== 'add-voter' && voters.includes(member.id));
  if (steps.length === 0 || leaving.length >= voters.length) return;
  for (const { member } of steps)
    if (world.memberOf(member.id) === undefined) world.addMember(member.id, undefined);
  world.tell(() => `change by ${leader.id}: ${steps.map(({ kind, member }) => `${kind} ${member.id}`)}`);
  if (world.chance() < 0.2) stallDisk(world);
  world.leavingId = leaving[0]?.member.id ?? world.leavingId;
  raft.proposeChange({ steps });
  leader.drain();
  if (world.chance() < 0.3) for (let calls = 0; calls < 3; calls++) world.clients.act(leader);
  // The change is on its way, and nobody hears more of it.
  if (world.chance() < 0.15) usurp(world);
}

/** A removed member asks to be taken in again under its old id. */
function comeBack(world: CoreWorld, raft: Raft): void {
  const { removed } = raft.configuration;
  if (removed.length === 0) return;
  try {
    raft.proposeChange({ steps: [{ kind: 'add-learner', member: aMember(world.pick(removed)) }] });
  } catch (error) {
    if (!(error instanceof SwarmError)) throw error;
  }
}

function drawStep(world: CoreWorld, { configuration, id }: Raft): ConfigurationStep | undefined {
  const { voters, learners } = configuration;
  const draw = world.chance();
  const fresh = world.members.length + 1;
  const canGrow = fresh <= IDS_MAX && participants(configuration).length < PARTICIPANTS_MAX;
  const step = (kind: ConfigurationStepKind, of: number) => ({ kind, member: aMember(of) });
  if (draw < 0.25 && canGrow) return step('add-learner', fresh);
  if (draw < 0.4 && canGrow) return step('add-voter', fresh);
  if (draw < 0.6 && learners.length > 0) return step('add-voter', world.pick(learners));
  if (draw < 0.75 && voters.length > 2) return step('add-learner', world.pick(voters));
  if (draw < 0.8) return step('move', world.pick(participants(configuration)));
  if (draw < 0.85 && voters.length > 1) return step('remove', id);
  if (participants(configuration).length > 2) return step('remove', world.pick(participants(configuration)));
  return undefined;
}
