import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Configuration, ConfigurationStep, ConfigurationStepKind } from '../../proto/generated/raft.ts';
import { problemBetween, problemOf } from '../../test/sim/configuration-checks.ts';
import {
  applyChange,
  hasQuorum,
  initialConfiguration,
  isJoint,
  participants,
  quorumIndex,
} from './configuration.ts';

const aMember = (id: number) => ({ id, nodeId: `node-${id}`, address: `10.0.0.${id}:2377` });
const voters = (...ids: number[]) => initialConfiguration(ids.map(aMember));
const step = (kind: ConfigurationStepKind, id: number): ConfigurationStep => ({ kind, member: aMember(id) });

/** `add-voter 4, remove 2` */
function change(configuration: Configuration, text: string): Configuration {
  const steps = text.split(', ').map((part) => {
    const [kind, id] = part.split(' ');
    return step(kind as ConfigurationStepKind, Number(id));
  });
  return applyChange(configuration, { steps });
}

const leave = (configuration: Configuration) => applyChange(configuration, { steps: [] });

const CHANGES: [name: string, before: Configuration, change: string, after: Partial<Configuration>][] = [
  [
    'one more voter needs no joint configuration',
    voters(1, 2),
    'add-voter 3',
    { voters: [1, 2, 3], outgoingVoters: [] },
  ],
  [
    'one voter less needs none either',
    voters(1, 2, 3),
    'remove 2',
    { voters: [1, 3], outgoingVoters: [], removed: [2] },
  ],
  [
    'a learner does not vote',
    voters(1, 2),
    'add-learner 3',
    { voters: [1, 2], learners: [3], outgoingVoters: [] },
  ],
  [
    'any number of learners may come at once',
    voters(1),
    'add-learner 3, add-learner 2',
    { learners: [2, 3], outgoingVoters: [] },
  ],
  [
    'two voters more need both majorities',
    voters(1),
    'add-voter 2, add-voter 3',
    { voters: [1, 2, 3], outgoingVoters: [1] },
  ],
  [
    'a voter in place of another needs both majorities',
    voters(1, 2, 3),
    'add-voter 4, remove 3',
    { voters: [1, 2, 4], outgoingVoters: [1, 2, 3], removed: [3] },
  ],
  [
    'a lone voter becomes a learner at once',
    voters(1, 2, 3),
    'add-learner 3',
    { voters: [1, 2], learners: [3], learnersNext: [] },
  ],
  [
    'a voter keeps its vote until a joint configuration is left',
    voters(1, 2, 3),
    'add-learner 3, remove 2',
    { voters: [1], outgoingVoters: [1, 2, 3], learners: [], learnersNext: [3] },
  ],
  ['a move changes the address only', voters(1, 2), 'move 2', { voters: [1, 2], learners: [] }],
];

for (const [name, before, text, after] of CHANGES)
  test(name, () => {
    const changed = change(before, text);

    for (const [field, value] of Object.entries(after))
      assert.deepEqual(changed[field as keyof Configuration], value, field);
  });

test('a joint configuration ends with its own voters, and its learners to be are learners', () => {
  const left = leave(change(voters(1, 2, 3), 'add-learner 3, remove 2'));

  assert.deepEqual([left.voters, left.learners, left.learnersNext, left.outgoingVoters], [[1], [3], [], []]);
});

test('who leaves can be reached as long as its vote is needed', () => {
  const joint = change(voters(1, 2, 3), 'add-voter 4, remove 3');

  assert.deepEqual(
    joint.members.map(({ id }) => id),
    [1, 2, 3, 4],
  );
  assert.deepEqual(
    leave(joint).members.map(({ id }) => id),
    [1, 2, 4],
  );
});

test('leaving what is not joint changes nothing', () => {
  const configuration = voters(1, 2, 3);

  assert.equal(leave(configuration), configuration);
});

const REFUSED: [name: string, before: Configuration, change: string, message: RegExp][] = [
  ['the last voter stays', voters(1), 'remove 1', /last voter/],
  ['the last voter does not become a learner', voters(1), 'add-learner 1', /last voter/],
  ['all voters do not leave together', voters(1, 2), 'remove 1, remove 2', /last voter/],
  [
    'a removed id does not return as a learner',
    change(voters(1, 2), 'remove 2'),
    'add-learner 2',
    /was removed/,
  ],
  ['a removed id does not return as a voter', change(voters(1, 2), 'remove 2'), 'add-voter 2', /was removed/],
  ['a stranger cannot be removed', voters(1, 2), 'remove 3', /not part/],
  ['a stranger cannot be moved', voters(1, 2), 'move 3', /not part/],
  [
    'nothing changes before a joint configuration is left',
    change(voters(1), 'add-voter 2, add-voter 3'),
    'add-learner 4',
    /not finished/,
  ],
  ['0 is nobody', voters(1), 'add-voter 0', /positive integer/],
];

for (const [name, before, text, message] of REFUSED)
  test(name, () => assert.throws(() => change(before, text), { name: 'SwarmError', message }));

test('a majority is more than half', () => {
  for (let size = 1; size <= 9; size++) {
    const configuration = voters(...Array.from({ length: size }, (_, at) => at + 1));
    for (let agreed = 0; agreed <= size; agreed++)
      assert.equal(
        hasQuorum(configuration, (id) => id <= agreed),
        agreed * 2 > size,
        `${agreed} of ${size}`,
      );
  }
});

test('a joint configuration needs a majority of both', () => {
  const joint = change(voters(1, 2, 3), 'add-voter 4, add-voter 5');

  assert.ok(!hasQuorum(joint, (id) => id >= 3));
  assert.ok(!hasQuorum(joint, (id) => id <= 2));
  assert.ok(hasQuorum(joint, (id) => id !== 3 && id !== 5));
});

const anyConfiguration = fc
  .array(
    fc.record({
      kind: fc.constantFrom('add-voter', 'add-learner', 'remove', 'move', 'leave'),
      id: fc.integer({ min: 1, max: 9 }),
      isPair: fc.boolean(),
    }),
    { maxLength: 25 },
  )
  .map((steps) => {
    const seen = [voters(1, 2, 3)];
    for (const { kind, id, isPair } of steps) {
      const before = seen.at(-1) as Configuration;
      try {
        if (kind === 'leave') seen.push(leave(before));
        else seen.push(change(before, `${kind} ${id}${isPair ? `, add-voter ${(id % 9) + 1}` : ''}`));
      } catch {
        // Refused: nothing has changed.
      }
    }
    return seen;
  });

test('whatever is changed in whatever order, quorums of one configuration meet those of the next', () => {
  fc.assert(
    fc.property(anyConfiguration, (seen) => {
      for (const [at, configuration] of seen.entries()) {
        assert.equal(problemOf(configuration), undefined);
        const before = seen[at - 1];
        if (before !== undefined && before !== configuration)
          assert.equal(problemBetween(before, configuration), undefined);
      }
    }),
  );
});

test('the index of a quorum is the largest that a quorum has', () => {
  fc.assert(
    fc.property(anyConfiguration, fc.array(fc.nat(8), { minLength: 10, maxLength: 10 }), (seen, matches) => {
      const configuration = seen.at(-1) as Configuration;
      const matchOf = (id: number) => matches[id] ?? 0;
      const index = quorumIndex(configuration, matchOf);
      assert.ok(hasQuorum(configuration, (id) => matchOf(id) >= index));
      assert.ok(!hasQuorum(configuration, (id) => matchOf(id) > index));
      assert.ok(isJoint(configuration) || participants(configuration).length >= configuration.voters.length);
    }),
  );
});
