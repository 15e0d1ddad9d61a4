// The checker itself: histories that are known to be right or wrong, and random ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Operation } from './core-clients.ts';
import { checkLinearizable } from './linearizability.ts';

/** "w1 0-3" writes 1 between times 0 and 3; "r1 2-" is not answered. */
function history(...calls: string[]): Operation[] {
  return calls.map((call, client) => {
    const [, kind, value, invoked, returned] = /^([rw])(\d+) (\d+)-(\d*)$/.exec(call) ?? [];
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

const GOOD: Record<string, Operation[]> = {
  nothing: [],
  'one after the other': history('w1 0-1', 'r1 2-3', 'w2 4-5', 'r2 6-7'),
  'a read beside a write sees either': history('w1 0-10', 'r0 1-2', 'r1 3-4'),
  'a write without an answer may have happened': history('w1 0-', 'r1 5-6'),
  'a write without an answer may never happen': history('w1 0-', 'r0 5-6', 'w2 7-8', 'r2 9-10'),
  'a write without an answer may happen late': history('w1 0-', 'w2 1-2', 'r2 3-4', 'r1 5-6'),
  'writes beside each other take any order': history('w1 0-10', 'w2 1-9', 'r2 11-12'),
  'readers agree on an order': history('w1 0-10', 'w2 0-10', 'r2 11-12', 'r2 13-14'),
  'an unanswered read says nothing': history('w1 0-1', 'r9 2-'),
};

const BAD: Record<string, Operation[]> = {
  'a stale read': history('w1 0-1', 'w2 2-3', 'r1 4-5'),
  'a lost write': history('w1 0-1', 'r0 2-3'),
  'a value from nowhere': history('w1 0-1', 'r7 2-3'),
  'a read goes back': history('w1 0-10', 'r1 1-2', 'r0 3-4'),
  'a read before the write began': history('r1 0-1', 'w1 2-3'),
  'two readers see different orders': history('w1 0-10', 'w2 0-10', 'r1 11-12', 'r2 13-14'),
  'an unanswered write happens twice': history('w1 0-', 'r1 1-2', 'w2 3-4', 'r1 5-6'),
  'stale after a read elsewhere': history('w1 0-1', 'w2 2-20', 'r2 3-4', 'r1 5-6'),
};

for (const [name, operations] of Object.entries(GOOD))
  test(`accepted: ${name}`, () => assert.equal(checkLinearizable(operations).isLinearizable, true));

for (const [name, operations] of Object.entries(BAD))
  test(`refused: ${name}`, () => assert.equal(checkLinearizable(operations).isLinearizable, false));

test('registers do not know of each other', () => {
  const [write, read] = history('w1 0-1', 'r0 2-3') as [Operation, Operation];
  assert.equal(checkLinearizable([write, { ...read, register: 1 }]).isLinearizable, true);
});

test('the verdict names the register and the calls', () => {
  const verdict = checkLinearizable(history('w1 0-1', 'w2 2-3', 'r1 4-5'));
  assert.ok(!verdict.isLinearizable);
  assert.deepEqual([verdict.register, verdict.stuckAt[0]?.value], [0, 1]);
});

/** Calls with an instant of effect inside each: what they read follows from the order of the instants. */
const executions = fc
  .array(fc.record({ isWrite: fc.boolean(), start: fc.nat(60), length: fc.nat(12), effect: fc.nat(100) }), {
    minLength: 1,
    maxLength: 7,
  })
  .map((calls) => {
    let value = 0;
    return calls
      .map((call, index) => ({ ...call, at: call.start + (call.effect / 100) * call.length + index / 1000 }))
      .sort((a, b) => a.at - b.at)
      .map(({ isWrite, start, length }, index): Operation => {
        if (isWrite) value = index + 1;
        const kind = isWrite ? 'write' : 'read';
        // Twice the time, plus one for the answer, so that no two calls begin where another ends.
        return {
          client: index,
          kind,
          register: 0,
          value,
          invoked: 2 * start,
          returned: 2 * (start + length) + 1,
        };
      });
  });

test('what really happened in one order is accepted', () => {
  fc.assert(fc.property(executions, (operations) => checkLinearizable(operations).isLinearizable));
});

/** All orders, one by one. */
function isExplainable(left: readonly Operation[], value: number): boolean {
  if (left.length === 0) return true;
  return left.some((next) => {
    if (left.some((other) => other !== next && (other.returned ?? 0) < next.invoked)) return false;
    if (next.kind === 'read' && next.value !== value) return false;
    return isExplainable(
      left.filter((other) => other !== next),
      next.kind === 'write' ? next.value : value,
    );
  });
}

test('with a wrong value the verdict is that of trying all orders', () => {
  let refused = 0;
  fc.assert(
    fc.property(executions, fc.nat(6), fc.nat(8), (operations, at, value) => {
      const edited = operations.map((operation, index) =>
        index === at && operation.kind === 'read' ? { ...operation, value } : operation,
      );
      const expected = isExplainable(edited, 0);
      if (!expected) refused++;
      return checkLinearizable(edited).isLinearizable === expected;
    }),
    { numRuns: 500 },
  );
  assert.ok(refused > 10);
});
