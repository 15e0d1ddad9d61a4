import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { beginningOf, linearize, type Operation, unexplainedRegister } from './linearizability.ts';

/** `w1 0-5` writes 1 from time 0 to 5, `r1 0-` reads 1 and has no answer. */
function aHistory(...calls: string[]): Operation[] {
  return calls.map((call, client) => {
    const [, kind, value, invoked, returned] = /^([wr])(\d+) (\d+)-(\d*)$/.exec(call) ?? [];
    return {
      client,
      kind: kind === 'w' ? 'write' : 'read',
      register: 0,
      value: Number(value),
      invoked: Number(invoked),
      returned: returned === '' ? undefined : Number(returned),
    };
  });
}

const GOOD: Record<string, string[]> = {
  'nothing at all': [],
  'a read before any write': ['r0 0-1'],
  'one after the other': ['w1 0-1', 'r1 2-3', 'w2 4-5', 'r2 6-7'],
  'concurrent writes in the order of the reads': ['w1 0-10', 'w2 0-10', 'r2 11-12', 'r2 13-14'],
  'a read that overlaps a write and sees the old value': ['w1 0-1', 'w2 2-10', 'r1 3-4', 'r2 5-6'],
  'a read that sees a write which began but has no answer yet': ['w1 0-10', 'r1 1-2'],
  'a write without an answer that happened': ['w1 0-1', 'w2 2-', 'r2 8-9'],
  'a write without an answer that did not happen': ['w1 0-1', 'w2 2-', 'r1 8-9'],
  'a write without an answer that happened late': ['w1 0-1', 'w2 2-', 'r1 8-9', 'r2 10-11'],
  'a read without an answer': ['w1 0-1', 'r7 2-'],
  'a value that is written twice': ['w1 0-1', 'w2 2-3', 'w1 4-5', 'r1 6-7'],
  'calls that touch at one moment': ['w1 0-5', 'r0 5-6'],
};

const BAD: Record<string, string[]> = {
  'a stale read': ['w1 0-1', 'w2 2-3', 'r1 4-5'],
  'a lost write': ['w1 0-1', 'r0 2-3'],
  'a value that nobody wrote': ['w1 0-1', 'r7 2-3'],
  'a value from the future': ['r1 0-1', 'w1 2-3'],
  'reads that see two writes in different orders': ['w1 0-10', 'w2 0-10', 'r1 11-12', 'r2 13-14', 'r1 15-16'],
  'a read that goes back while a write runs': ['w1 0-1', 'w2 2-20', 'r2 3-4', 'r1 5-6'],
  'a write without an answer that happened and then did not': ['w1 0-1', 'w2 2-', 'r2 4-5', 'r1 6-7'],
  'a write without an answer that happened before it began': ['w1 0-1', 'r2 2-3', 'w2 4-'],
  'a write without an answer that happened twice': ['w1 0-', 'w2 1-2', 'r1 3-4', 'w3 5-6', 'r1 7-8'],
};

for (const [name, calls] of Object.entries(GOOD))
  test(`${name} is linearizable`, () => assert.ok(linearize(aHistory(...calls)) !== undefined));

for (const [name, calls] of Object.entries(BAD))
  test(`${name} is not linearizable`, () => assert.equal(linearize(aHistory(...calls)), undefined));

test('registers are independent of each other', () => {
  const [first, second] = aHistory('w1 0-1', 'r0 2-3') as [Operation, Operation];

  assert.equal(unexplainedRegister([first, second]), 0);
  assert.equal(unexplainedRegister([first, { ...second, register: 1 }]), undefined);
});

test('the beginning of a history does not know later answers', () => {
  const beginning = beginningOf(aHistory('w1 0-1', 'w2 2-30', 'r2 10-20', 'r2 21-22'), 3);

  assert.deepEqual(
    beginning.map(({ returned }) => returned),
    [1, undefined, 20],
  );
});

test('many calls without an answer do not make the search long', () => {
  const open = Array.from({ length: 40 }, (_, at) => `w${at + 1} ${at}-`);

  assert.ok(linearize(aHistory(...open, 'w99 50-51', 'r99 52-53', 'r7 54-55')) !== undefined);
  assert.equal(linearize(aHistory(...open, 'w99 50-51', 'r98 52-53')), undefined);
});

/** Calls that took effect one after the other, each seen from some time before until some time after. */
const anExecution = fc
  .array(
    fc.record({
      kind: fc.constantFrom('write' as const, 'read' as const),
      value: fc.integer({ min: 1, max: 3 }),
      before: fc.nat(25),
      after: fc.nat(25),
      isAnswered: fc.boolean(),
    }),
    { maxLength: 30 },
  )
  .map((calls) => {
    let held = 0;
    return calls.map(({ kind, value, before, after, isAnswered }, at): Operation => {
      if (kind === 'write') held = value;
      const returned = isAnswered || at % 3 > 0 ? at * 10 + after : undefined;
      return { client: at, kind, register: 0, value: held, invoked: at * 10 - before, returned };
    });
  });

test('what was executed one call after the other is linearizable', () => {
  fc.assert(
    fc.property(anExecution, (history) => {
      const order = linearize(history);
      assert.ok(order !== undefined);
      assertExplains(order, history);
    }),
  );
});

test('on short histories the search agrees with trying all orders', () => {
  const aCall = fc.record({
    kind: fc.constantFrom('write' as const, 'read' as const),
    value: fc.integer({ min: 0, max: 2 }),
    invoked: fc.nat(12),
    duration: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
  });
  let refused = 0;
  fc.assert(
    fc.property(fc.array(aCall, { maxLength: 6 }), (calls) => {
      const history = calls.map(({ kind, value, invoked, duration }, client): Operation => {
        const returned = duration === undefined ? undefined : invoked + duration;
        return { client, kind, register: 0, value, invoked, returned };
      });
      const order = linearize(history);
      if (order === undefined) refused++;
      else assertExplains(order, history);
      assert.equal(order !== undefined, existsOrder(history, 0));
    }),
    { numRuns: 2000 },
  );
  assert.ok(refused > 100);
});

/** An order is a proof: the values fit, real time is kept, and nothing that was answered is missing. */
function assertExplains(order: readonly Operation[], history: readonly Operation[]): void {
  let held = 0;
  for (const [at, call] of order.entries()) {
    if (call.kind === 'write') held = call.value;
    assert.equal(call.value, held);
    for (const later of order.slice(at + 1))
      assert.ok((later.returned ?? Number.POSITIVE_INFINITY) >= call.invoked);
  }
  for (const call of history) if (call.returned !== undefined) assert.ok(order.includes(call));
}

/** The definition itself. */
function existsOrder(left: readonly Operation[], held: number): boolean {
  if (left.every(({ returned }) => returned === undefined)) return true;
  return left.some((call) => {
    const rest = left.filter((other) => other !== call);
    const isFirst = rest.every(({ returned }) => (returned ?? Number.POSITIVE_INFINITY) >= call.invoked);
    if (!isFirst || (call.kind === 'read' && call.value !== held)) return false;
    return existsOrder(rest, call.value);
  });
}
