// Messages, entries and members in one line each, for traces and scripts.

import type { Raft } from '../../manager/raft/raft.ts';
import type { Configuration, Entry, RaftMessage } from '../../proto/generated/raft.ts';

/** `3/t2` is entry 3, of term 2. */
export function describeEntry({ index, term, kind, payload }: Entry): string {
  const content = kind === 'normal' ? `:${describePayload(payload)}` : `:${kind}`;
  return `${index}/t${term}${content}`;
}

export function describeMessage(message: RaftMessage): string {
  const { type, from, to, term } = message;
  return [`${type} ${from}->${to} t${term}`, ...details(message)].join(' ');
}

export function describeConfiguration(configuration: Configuration): string {
  const { voters, outgoingVoters, learners, learnersNext, removed } = configuration;
  const parts = [`voters ${voters.join(',')}`];
  if (outgoingVoters.length > 0) parts.push(`leaving ${outgoingVoters.join(',')}`);
  if (learners.length > 0) parts.push(`learners ${learners.join(',')}`);
  if (learnersNext.length > 0) parts.push(`learners next ${learnersNext.join(',')}`);
  if (removed.length > 0) parts.push(`removed ${removed.join(',')}`);
  return parts.join(' ');
}

export function describeMember({ id, role, term, vote, leaderId, log, configuration }: Raft): string {
  const { firstIndex, lastIndex, lastTerm, committedIndex, handedOutIndex, stableIndex } = log;
  return [
    `${id} ${role} t${term} vote ${vote} leader ${leaderId}`,
    `log ${firstIndex}..${lastIndex}/t${lastTerm} durable ${stableIndex} commit ${committedIndex} applied ${handedOutIndex}`,
    describeConfiguration(configuration),
  ].join(' | ');
}

function details({ type, logIndex, logTerm, entries, commit, context, ...rest }: RaftMessage): string[] {
  const { rejected, hintIndex, hintTerm, snapshot } = rest;
  switch (type) {
    case 'append':
      return [`after ${logIndex}/t${logTerm} [${entries.map(describeEntry).join(' ')}] commit ${commit}`];
    case 'append-response':
      return [rejected ? `refused ${logIndex}, try ${hintIndex}/t${hintTerm}` : `has ${logIndex}`];
    case 'heartbeat':
      return [`commit ${commit}${context > 0 ? ` read ${context}` : ''}`];
    case 'heartbeat-response':
      return context > 0 ? [`read ${context}`] : [];
    case 'pre-vote':
    case 'vote':
      return [`log ${logIndex}/t${logTerm}${context > 0 ? ' by order of the leader' : ''}`];
    case 'pre-vote-response':
    case 'vote-response':
      return [rejected ? `refused, commit ${commit}/t${hintTerm}` : 'granted'];
    case 'snapshot':
      return [`up to ${snapshot?.index ?? logIndex}`];
    case 'timeout-now':
      return [];
  }
}

function describePayload(payload: Uint8Array): string {
  const isText = payload.every((byte) => byte >= 32 && byte < 127);
  return isText ? new TextDecoder().decode(payload) : payload.join('.');
}
