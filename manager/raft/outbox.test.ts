import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Entry, emptyConfiguration, type HardState } from '../../proto/generated/raft.ts';
import type { Append } from './contract.ts';
import { newMessage } from './message.ts';
import { Outbox } from './outbox.ts';
import { RaftLog } from './raft-log.ts';

const WRITTEN: HardState = { term: 3, vote: 0, commit: 5 };
const SELF = 1;
const anEntry: Entry = { index: 1, term: 3, kind: 'normal', payload: new Uint8Array(1) };

function anOutbox() {
  return { outbox: new Outbox(WRITTEN), log: new RaftLog({ index: 0, term: 0 }, [], 0) };
}

test('nothing to write, nothing to append', () => {
  const { outbox, log } = anOutbox();

  assert.equal(outbox.takeAppend(log, WRITTEN), undefined);
  assert.equal(outbox.takeAppend(log, { ...WRITTEN, commit: 6 }), undefined);
});

const WORTH_A_WRITE: [name: string, prepare: (outbox: Outbox, log: RaftLog) => void, hardState: HardState][] =
  [
    ['a new term', () => {}, { ...WRITTEN, term: 4 }],
    ['a vote', () => {}, { ...WRITTEN, vote: 2 }],
    ['an entry', (_, log) => log.append([anEntry]), WRITTEN],
    [
      'a commit index that must be remembered',
      (outbox) => outbox.rememberCommit(),
      { ...WRITTEN, commit: 6 },
    ],
    [
      'a snapshot',
      (outbox) => outbox.install({ index: 9, term: 3, configuration: emptyConfiguration, stateHash: 0 }),
      WRITTEN,
    ],
  ];

for (const [name, prepare, hardState] of WORTH_A_WRITE)
  test(`${name} is worth a write, once, and takes the commit index along`, () => {
    const { outbox, log } = anOutbox();
    prepare(outbox, log);

    assert.deepEqual(outbox.takeAppend(log, hardState)?.hardState, hardState);
    assert.equal(outbox.takeAppend(log, hardState), undefined);
  });

test('an answer that waits for earlier writes takes a place in their order', () => {
  const { outbox, log } = anOutbox();
  outbox.sendWhenDurable(newMessage('vote-response', 2));

  const append = outbox.takeAppend(log, WRITTEN);

  assert.deepEqual([append?.hardState, append?.entries], [undefined, []]);
  assert.deepEqual(outbox.takeMessages(), []);
  outbox.persisted(append as Append, log, SELF);
  assert.deepEqual(
    outbox.takeMessages().map(({ type }) => type),
    ['vote-response'],
  );
});

test('what needs no disk leaves at once', () => {
  const { outbox } = anOutbox();
  outbox.send(newMessage('heartbeat', 2));

  assert.equal(outbox.takeMessages().length, 1);
  assert.equal(outbox.takeMessages().length, 0);
});

test('what a member says to itself comes back when it is durable', () => {
  const { outbox, log } = anOutbox();
  outbox.sendWhenDurable(newMessage('vote-response', SELF));
  outbox.sendWhenDurable(newMessage('vote', 2));
  const append = outbox.takeAppend(log, { ...WRITTEN, term: 4, vote: SELF }) as Append;

  const own = outbox.persisted(append, log, SELF);

  assert.deepEqual(
    own.map(({ type }) => type),
    ['vote-response'],
  );
  assert.deepEqual(
    outbox.takeMessages().map(({ type }) => type),
    ['vote'],
  );
});

test('a write releases only what was said before it', () => {
  const { outbox, log } = anOutbox();
  outbox.sendWhenDurable(newMessage('append-response', 2, { logIndex: 1 }));
  const first = outbox.takeAppend(log, WRITTEN) as Append;
  outbox.sendWhenDurable(newMessage('append-response', 2, { logIndex: 2 }));
  outbox.takeAppend(log, WRITTEN);

  outbox.persisted(first, log, SELF);

  assert.deepEqual(
    outbox.takeMessages().map(({ logIndex }) => logIndex),
    [1],
  );
});

test('a snapshot is being installed until it is durable', () => {
  const { outbox, log } = anOutbox();
  outbox.install({ index: 9, term: 3, configuration: emptyConfiguration, stateHash: 0 });
  assert.ok(outbox.isInstalling);

  const append = outbox.takeAppend(log, WRITTEN) as Append;
  assert.ok(outbox.isInstalling);
  outbox.persisted(append, log, SELF);
  assert.ok(!outbox.isInstalling);
});
