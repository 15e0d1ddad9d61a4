// Deliberate bugs of the consensus core, as edits of its source that exist only in the process that loads them. Each
// breaks one rule of manager/raft/SPEC.md; the simulation has to notice every one. An edit whose text is not found
// exactly once is an error, so that the catalogue follows the code.

import { readFileSync } from 'node:fs';
import { type LoadHookSync, registerHooks } from 'node:module';
import path from 'node:path';
import { defined } from '../../core/assert.ts';

export interface Edit {
  readonly name: string;
  readonly find: string;
  readonly replace: string;
}

export interface FileMutant extends Edit {
  readonly file: string;
}

export interface Mutant extends Edit {
  readonly file: 'configuration' | 'leader' | 'outbox' | 'progress' | 'raft' | 'raft-log';
  /** Where the search begins, for what is seldom noticed. Default: 1. */
  readonly firstSeed?: number;
  /** No run notices it, a script does. */
  readonly isScripted?: boolean;
}

const folder = path.join(import.meta.dirname, '../../manager/raft');

/** Every module of the core that is loaded from now on has the bug. Call it before the core is imported. */
export function plant(mutant: Mutant): void {
  plantIn(path.join(folder, `${mutant.file}.ts`), mutant);
}

/** The same for one file anywhere. */
export function plantIn(target: string, edit: Edit): void {
  const load: LoadHookSync = (url, context, nextLoad) => {
    const result = nextLoad(url, context);
    if (url !== `file://${target}`) return result;
    return { ...result, source: mutate(edit, readFileSync(target, 'utf8')) };
  };
  registerHooks({ load });
}

/** The bug of this name, of a list whose files are below `root`. */
export function plantNamed(mutants: readonly FileMutant[], root: string, name: string): void {
  const mutant = named(mutants, name);
  plantIn(path.join(root, mutant.file), mutant);
}

export function sourceOf({ file }: Mutant): string {
  return readFileSync(path.join(folder, `${file}.ts`), 'utf8');
}

export function mutate({ name, find, replace }: Edit, source: string): string {
  const parts = source.split(find);
  if (parts.length !== 2)
    throw new Error(`the text of '${name}' is found ${parts.length - 1} times, not once`);
  return parts.join(replace);
}

export function mutantOf(name: string): Mutant {
  return named(MUTANTS, name);
}

function named<M extends Edit>(mutants: readonly M[], name: string): M {
  return defined(
    mutants.find((mutant) => mutant.name === name),
    `there is no mutant '${name}'`,
  );
}

const ELECTIONS: readonly Mutant[] = [
  {
    name: 'a vote is answered before it is durable',
    file: 'raft',
    find: 'this.#sendWhenDurable(newMessage(answer, from, isGranted ? {} : this.#refusal()));',
    replace: 'this.send(newMessage(answer, from, isGranted ? {} : this.#refusal()));',
  },
  {
    name: 'votes are asked for before the own one is durable',
    file: 'raft',
    find: 'this.#sendWhenDurable(\n        peer === this.id',
    replace: 'this.send(\n        peer === this.id',
  },
  {
    name: 'a second vote in one term',
    file: 'raft',
    find: 'this.#vote === from || (this.#vote === 0 && this.leaderId === 0)',
    replace: 'this.leaderId === 0',
  },
  {
    name: 'the vote is kept in the next term',
    file: 'raft',
    find: 'this.term = term;\n      this.#vote = 0;',
    replace: 'this.term = term;',
  },
  {
    name: 'a vote alone is not worth a write',
    file: 'outbox',
    find: 'hardState.term !== this.#written.term || hardState.vote !== this.#written.vote',
    replace: 'hardState.term !== this.#written.term',
  },
  {
    name: 'a new term alone is not worth a write',
    file: 'outbox',
    find: 'hardState.term !== this.#written.term || hardState.vote !== this.#written.vote',
    replace: 'hardState.vote !== this.#written.vote',
  },
  {
    name: 'logs are compared by length only',
    file: 'raft-log',
    find: 'term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex)',
    replace: 'index >= this.lastIndex && term > 0',
  },
  {
    name: 'logs are compared by term only',
    file: 'raft-log',
    find: 'term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex)',
    replace: 'term >= this.lastTerm && index > 0',
  },
  {
    name: 'anybody is up to date',
    file: 'raft',
    find: 'isFree && this.log.isUpToDate(logIndex, logTerm)',
    replace: 'isFree && logIndex + logTerm > 0',
  },
  {
    name: 'a refused vote counts',
    file: 'raft',
    find: 'this.#votes.set(from, !rejected);',
    replace: 'this.#votes.set(from, rejected || true);',
  },
  {
    name: 'pre-votes are still there when votes are counted',
    file: 'raft',
    find: "this.#role = 'candidate';\n    this.leaderId = 0;\n    this.#votes.clear();",
    replace: "this.#role = 'candidate';\n    this.leaderId = 0;",
  },
  {
    name: 'a late pre-vote counts as a vote',
    file: 'raft',
    find: "if (this.#role === 'pre-candidate') this.#countVote(message);",
    replace: 'this.#countVote(message);',
  },
  {
    name: 'pre-vote raises the term',
    file: 'raft',
    find: 'const term = this.term + 1;',
    replace: 'const term = ++this.term + 1;',
  },
  {
    name: 'pre-vote is refused by who has voted',
    file: 'raft',
    find: ' || (isPreVote && term > this.term);',
    replace: ';',
  },
  {
    name: 'who hears a leader votes for others',
    file: 'raft',
    find: 'if (hearsLeader && message.context !== TRANSFER) return false;',
    replace: 'if (hearsLeader && message.term === 0) return false;',
  },
  {
    name: 'a candidate asks without raising the term',
    file: 'raft',
    find: '    this.term++;\n',
    replace: '',
  },
  {
    name: 'answers of earlier terms count',
    file: 'raft',
    find: 'this.#answerLowerTerm(message);\n      return;',
    replace: "this.#answerLowerTerm(message);\n      if (!message.type.endsWith('response')) return;",
  },
  {
    name: 'who is behind is not told the term',
    file: 'raft',
    find: "if (type === 'append' || type === 'heartbeat') this.send(newMessage('append-response', from));\n    else if",
    replace: 'if',
  },
  {
    name: 'elections do not tell what is committed',
    firstSeed: 217,
    file: 'raft',
    find: 'this.#learnCommit(message);',
    replace: '',
  },
  {
    name: 'a refused vote tells any commit index',
    file: 'raft',
    find: 'if (hintTerm !== 0 && this.log.termOf(commit) === hintTerm) this.log.commitTo(commit);',
    replace: 'if (hintTerm !== 0 && commit <= this.log.lastIndex) this.log.commitTo(commit);',
  },
  {
    name: 'no entry begins a term',
    file: 'raft',
    find: "this.#append([{ kind: 'noop', payload: new Uint8Array(0) }]);",
    replace: '',
  },
  {
    name: 'no check of the quorum',
    file: 'raft',
    find: 'if (!this.#leader.checkQuorum()) {',
    replace: 'if (!this.#leader.checkQuorum() && this.term < 0) {',
  },
];

const REPLICATION: readonly Mutant[] = [
  {
    name: 'entries are acknowledged before they are durable',
    file: 'raft',
    find: "this.#sendWhenDurable(newMessage('append-response', from, { logIndex: last }));",
    replace: "this.send(newMessage('append-response', from, { logIndex: last }));",
  },
  {
    name: 'earlier terms are committed by counting',
    firstSeed: 41,
    file: 'leader',
    find: 'index > log.committedIndex && log.termOf(index) === term',
    replace: 'index > log.committedIndex && term !== 0',
  },
  {
    name: 'half is a majority of votes',
    file: 'configuration',
    find: 'count > voters.length / 2',
    replace: 'count >= voters.length / 2',
  },
  {
    name: 'half is a majority of copies',
    file: 'configuration',
    find: 'sorted[Math.floor(voters.length / 2)]',
    replace: 'sorted[Math.floor((voters.length - 1) / 2)]',
  },
  {
    name: 'the leader counts itself before its disk has it',
    file: 'leader',
    find: 'voter === id ? log.stableIndex',
    replace: 'voter === id ? log.lastIndex',
  },
  {
    name: 'what was sent counts as received',
    file: 'progress',
    find: 'this.next += count;',
    replace: 'this.next += count;\n        this.match = this.next - 1;',
  },
  {
    name: 'a follower believes any commit index',
    file: 'raft',
    find: 'this.log.commitTo(Math.min(commit, last));',
    replace: 'this.log.commitTo(commit);',
  },
  {
    name: 'a heartbeat tells the whole commit index',
    file: 'leader',
    find: 'const commit = Math.min(progress.match, log.committedIndex);',
    replace: 'const commit = log.committedIndex;',
  },
  {
    name: 'a short log is told to commit what it has',
    file: 'leader',
    find: 'const commit = Math.min(progress.match, log.committedIndex);',
    replace: 'const commit = Math.min(progress.next - 1, log.committedIndex);',
  },
  {
    name: 'entries are accepted without a look at the one before',
    file: 'raft-log',
    find: 'if (this.termOf(index) !== term) return undefined;',
    replace: 'if (index > this.lastIndex || term < 0) return undefined;',
  },
  {
    name: 'every append truncates',
    file: 'raft-log',
    find: 'if (this.termOf(entry.index) === entry.term) continue;',
    replace: '',
  },
  {
    name: 'a conflict is left as it is',
    file: 'raft-log',
    find: 'this.#truncate(entry.index);\n',
    replace: 'if (entry.index <= this.lastIndex) break;\n',
  },
  {
    name: 'what is not durable is applied',
    file: 'raft-log',
    find: 'Math.min(this.committedIndex, this.#stableIndex) - this.handedOutIndex',
    replace: 'this.committedIndex - this.handedOutIndex',
  },
  {
    name: 'a write attests what was truncated since',
    file: 'raft-log',
    find: 'attestation.lastIndex = Math.min(attestation.lastIndex, from - 1);',
    replace: 'attestation.lastIndex = Math.max(attestation.lastIndex, 0);',
  },
  {
    name: 'what is truncated remains durable',
    file: 'raft-log',
    find: 'this.#stableIndex = Math.min(this.#stableIndex, from - 1);',
    replace: '',
  },
  {
    name: 'what replaces the truncated is not written',
    file: 'raft-log',
    find: 'this.#takenIndex = Math.min(this.#takenIndex, from - 1);',
    replace: '',
  },
  {
    name: 'the commit index is not written',
    file: 'raft',
    find: 'vote: this.#vote, commit: this.log.committedIndex };',
    replace: 'vote: this.#vote, commit: 0 };',
  },
  {
    name: 'after a refusal the same is sent again',
    file: 'progress',
    find: 'this.next = Math.max(Math.min(refused, hint + 1), this.match + 1);',
    replace: '',
  },
  {
    name: 'the window is never freed',
    file: 'progress',
    find: 'if (count > 0) this.#sent.splice(0, count);',
    replace: '',
  },
  {
    name: 'the window has no end',
    file: 'progress',
    find: 'this.#sent.length >= this.#limits.messagesMax || this.#bytes >= this.#limits.bytesMax',
    replace: 'this.#sent.length < 0',
  },
  {
    name: 'who is paused stays so',
    file: 'progress',
    find: '  resume(): void {\n    this.#isPaused = false;',
    replace: '  resume(): void {',
  },
  {
    name: 'a lost append is never sent again',
    file: 'leader',
    find: "if (progress.match < this.#context.log.lastIndex || progress.state === 'probe')\n      this.#sendAppend(from, true);",
    replace: '',
  },
];

const READS: readonly Mutant[] = [
  {
    name: 'reads before the first commit of the term',
    file: 'leader',
    find: 'this.#reads.length === 0 || log.termOf(log.committedIndex) !== term',
    replace: 'this.#reads.length === 0 || term === 0',
  },
  {
    name: 'reads without a quorum',
    file: 'leader',
    find: '(this.#confirmedReads.get(voter) ?? 0) >= read',
    replace: 'read > 0',
  },
  {
    name: 'confirmations of earlier reads count',
    file: 'leader',
    find: '(this.#confirmedReads.get(voter) ?? 0) >= read',
    replace: '(this.#confirmedReads.get(voter) ?? 0) > 0',
  },
  {
    name: 'the number of a read is used again',
    file: 'leader',
    find: 'this.#reads.push(++this.#readsAsked);',
    replace: 'this.#readsAsked ||= 1;\n    this.#reads.push(this.#readsAsked);',
  },
  {
    name: 'a heartbeat asks for reads to come',
    file: 'leader',
    find: "this.#context.send(newMessage('heartbeat', peer, { commit, context: this.#readsAsked }));",
    replace: "this.#context.send(newMessage('heartbeat', peer, { commit, context: this.#readsAsked + 1 }));",
  },
  {
    name: 'any answer confirms all reads',
    file: 'leader',
    find: 'Math.max(this.#confirmedReads.get(from) ?? 0, context)',
    replace: 'Math.max(this.#readsAsked, context)',
  },
  {
    name: 'a read takes the applied index',
    file: 'leader',
    find: 'read, index: log.committedIndex }',
    replace: 'read, index: log.handedOutIndex }',
  },
];

const TRANSFER: readonly Mutant[] = [
  {
    name: 'leadership goes to one who lacks entries',
    file: 'leader',
    find: 'if (this.#progress.get(peer)?.match !== this.#context.log.lastIndex) return;',
    replace: '',
  },
  {
    name: 'timeout-now is obeyed by who has no vote',
    firstSeed: 72,
    file: 'raft',
    find: "if (this.#role === 'follower' && this.#mayCampaign()) this.#becomeCandidate(TRANSFER);",
    replace: "if (this.#role === 'follower') this.#becomeCandidate(TRANSFER);",
  },
  {
    name: 'proposals are taken during a transfer',
    file: 'raft',
    find: "if (this.#leader.transferTarget !== undefined) return 'transferring';\n    const bytes",
    replace: 'const bytes',
  },
  {
    name: 'a transfer is never given up',
    firstSeed: 56,
    file: 'raft',
    find: 'this.#leader.endTransfer();',
    replace: '',
  },
];

const CONFIGURATION: readonly Mutant[] = [
  {
    name: 'elections need the new majority only',
    file: 'configuration',
    find: '(!isJoint(configuration) || isMajority(configuration.outgoingVoters, agreed))',
    replace: '(!isJoint(configuration) || agreed !== undefined)',
  },
  {
    name: 'commits need the new majority only',
    firstSeed: 44,
    file: 'configuration',
    find: '? Math.min(index, majorityIndex(configuration.outgoingVoters, matchOf))',
    replace: '? index',
  },
  {
    name: 'learners count at commit',
    file: 'configuration',
    find: 'const index = majorityIndex(configuration.voters, matchOf);',
    replace: 'const index = majorityIndex([...configuration.voters, ...configuration.learners], matchOf);',
  },
  {
    name: 'learners are asked for votes',
    file: 'configuration',
    find: 'return voters.includes(id) || outgoingVoters.includes(id);',
    replace: 'return voters.includes(id) || outgoingVoters.includes(id) || id > voters.length;',
  },
  {
    name: 'learners confirm a leader',
    file: 'configuration',
    find: 'isMajority(configuration.voters, agreed) &&',
    replace: 'isMajority([...configuration.voters, ...configuration.learners], agreed) &&',
  },
  {
    name: 'who has no vote stands for election',
    file: 'raft',
    find: 'isVoter(this.configuration, this.id) &&\n      !this.#outbox',
    replace: '!this.#outbox',
  },
  {
    name: 'a change while another is under way',
    file: 'raft',
    find: "if (this.#pendingConfigurationIndex > this.log.handedOutIndex) return 'change-in-progress';",
    replace: '',
  },
  {
    name: 'a new leader does not look for open changes',
    file: 'raft',
    find: 'wait for all of them.\n    this.#pendingConfigurationIndex = this.log.lastIndex;',
    replace: 'wait for all of them.\n    this.#pendingConfigurationIndex = 0;',
  },
  {
    name: 'a configuration holds when it is proposed',
    file: 'raft',
    find: 'applyChange(this.configuration, change);\n    this.#appendChange(change);',
    replace: 'this.configuration = applyChange(this.configuration, change);\n    this.#appendChange(change);',
  },
  {
    name: 'who has not applied a change campaigns',
    firstSeed: 73,
    file: 'raft',
    find: '!this.#outbox.isInstalling &&\n      !this.log.hasUnappliedConfiguration()',
    replace: '!this.#outbox.isInstalling',
  },
  {
    name: 'a candidate that lost its vote goes on',
    isScripted: true,
    file: 'raft',
    find: "if (this.#role !== 'follower' && !isVoter(this.configuration, this.id)) {",
    replace: "if (this.#role === 'leader' && !isVoter(this.configuration, this.id)) {",
  },
  {
    name: 'a removed leader stays',
    file: 'raft',
    find: "if (this.#role !== 'follower' && !isVoter(this.configuration, this.id)) {",
    replace: "if (this.#role !== 'follower' && this.configuration.voters.length === 0) {",
  },
  {
    name: 'a removed member keeps its vote',
    file: 'configuration',
    find: '    ...configuration,\n    voters,\n    learners,\n    learnersNext,\n    members: others,',
    replace: '    ...configuration,\n    learners,\n    learnersNext,\n    members: others,',
  },
  {
    name: 'a voter is a learner while its vote is needed',
    file: 'configuration',
    find: 'const wasVoter = configuration.voters.includes(id);',
    replace: 'const wasVoter = false;',
  },
  {
    name: 'two voters change at once',
    file: 'configuration',
    find: 'if (voterDifference(configuration, after) <= 1)',
    replace: 'if (voterDifference(configuration, after) <= 2)',
  },
  {
    name: 'a removed id returns',
    file: 'configuration',
    find: 'if (removed.includes(id))',
    replace: 'if (removed.includes(id) && id < 0)',
  },
  {
    name: 'only who began a joint configuration leaves it',
    file: 'raft',
    find: 'if (committed.length > 0 && log.handedOutIndex',
    replace: "if (committed.some(({ kind }) => kind === 'configuration') && log.handedOutIndex",
  },
  {
    name: 'new peers are not followed',
    file: 'raft',
    find: 'this.#leader.followConfiguration();\n',
    replace: '',
  },
];

const SNAPSHOTS: readonly Mutant[] = [
  {
    name: 'a snapshot older than the log is taken',
    file: 'raft',
    find: 'if (index > this.log.committedIndex) {',
    replace: 'if (index > 0) {',
  },
  {
    name: 'a snapshot without its configuration',
    file: 'raft',
    find: '        this.configuration = configuration;\n',
    replace: '',
  },
  {
    name: 'a snapshot replaces a log that goes further',
    firstSeed: 1332,
    file: 'raft',
    find: 'if (this.log.termOf(index) === term) this.log.commitTo(index);',
    replace: 'if (this.log.termOf(index) === term && index < 0) this.log.commitTo(index);',
  },
  {
    name: 'entries survive the snapshot that replaces them',
    file: 'raft-log',
    find: 'this.#entries = [];\n    this.#compactedIndex = index;',
    replace: 'this.#entries = this.#entries.slice(-1);\n    this.#compactedIndex = index;',
  },
  {
    name: 'a write attests what a snapshot has replaced',
    firstSeed: 476,
    file: 'raft-log',
    find: 'for (const attestation of this.#inFlight) attestation.lastIndex = 0;',
    replace: 'for (const attestation of this.#inFlight) attestation.lastIndex += 1;',
  },
  {
    name: 'a snapshot is acknowledged before it is durable',
    file: 'raft',
    find: "    }\n    this.#sendWhenDurable(newMessage('append-response', from, { logIndex: this.log.committedIndex }));",
    replace:
      "    }\n    this.send(newMessage('append-response', from, { logIndex: this.log.committedIndex }));",
  },
  {
    name: 'a failed snapshot is never sent again',
    file: 'leader',
    find: 'else progress.failSnapshot();\n    // Wait for a sign of life before trying again.\n    progress.pause();',
    replace: '',
  },
  {
    name: 'compaction drops one entry more',
    file: 'raft-log',
    find: 'this.#entries = this.#entries.slice(index - this.#compactedIndex);',
    replace: 'this.#entries = this.#entries.slice(index - this.#compactedIndex + 1);',
  },
  {
    name: 'compaction forgets the term of the last entry',
    file: 'raft-log',
    find: 'this.#compactedIndex = index;\n    this.#compactedTerm = term;\n  }\n\n  /** Replaces',
    replace: 'this.#compactedIndex = index;\n  }\n\n  /** Replaces',
  },
];

export const MUTANTS: readonly Mutant[] = [
  ...ELECTIONS,
  ...REPLICATION,
  ...READS,
  ...TRANSFER,
  ...CONFIGURATION,
  ...SNAPSHOTS,
];
