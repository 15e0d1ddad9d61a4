import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  isRenewing,
  planRotation,
  ROTATION_BATCH_MAX,
  ROTATION_INTERVAL_MS,
  type RotatingNode,
} from './plan-rotation.ts';

const NOW_MS = 1_700_000_000_000;
const NEW = 'new';

const aNode = (name: string, change: Partial<RotatingNode> = {}): RotatingNode => ({
  id: `id-${name}`,
  name,
  state: 'ready',
  issuerDigest: 'old',
  trustsNewRoot: false,
  askedAtMs: 0,
  ...change,
});
const renewed = { issuerDigest: NEW, trustsNewRoot: true };
const nodes = (count: number, change: Partial<RotatingNode> = {}) =>
  Array.from({ length: count }, (_, index) => aNode(`n${index}`, change));
const plan = (all: readonly RotatingNode[], nowMs = NOW_MS) =>
  planRotation(all, { newRootDigest: NEW, nowMs });

/** The nodes after the plan's questions have been written down. */
const asked = (all: readonly RotatingNode[], ids: readonly string[], nowMs: number) =>
  all.map((node) => (ids.includes(node.id) ? { ...node, askedAtMs: nowMs } : node));

test('the first thirty nodes are asked at once, the next when there is room and three seconds have passed', () => {
  const first = plan(nodes(70));
  assert.equal(first.ask.length, 30);
  const all = asked(nodes(70), first.ask, NOW_MS);
  assert.deepEqual(plan(all), { ...first, ask: [], wakeAtMs: NOW_MS + 3_000 });
  assert.deepEqual(plan(all, NOW_MS + 3_000).ask, [], 'all of them are still at it');
  const some = all.map((node, index) => (index < 12 ? { ...node, ...renewed } : node));
  assert.deepEqual(plan(some, NOW_MS + 2_999).ask, []);
  assert.deepEqual(
    plan(some, NOW_MS + 3_000).ask,
    some.slice(30, 42).map(({ id }) => id),
  );
  assert.equal(plan(some).progress, '12 of 70 nodes');
});

test('a rotation is finished when every node uses and trusts the new root', () => {
  assert.equal(plan([aNode('a', renewed), aNode('b', renewed)]).isFinished, true);
  assert.equal(plan([aNode('a', renewed), aNode('b', { issuerDigest: NEW })]).isFinished, false);
  assert.equal(plan([aNode('a', renewed), aNode('b', { trustsNewRoot: true })]).isFinished, false);
  assert.equal(
    plan([aNode('a', { ...renewed, issuerDigest: '' })]).isFinished,
    false,
    'who has said nothing',
  );
});

test('a node that is down is not asked, holds it up by name, and takes no place in the batch', () => {
  const all = [
    aNode('a', renewed),
    aNode('b', { state: 'down' }),
    ...nodes(30, { state: 'down', askedAtMs: 1 }),
    aNode('z'),
  ];
  const { ask, isFinished, heldUpBy, progress } = plan(all);
  assert.deepEqual(ask, ['id-z']);
  assert.equal(isFinished, false);
  assert.equal(heldUpBy.length, 31);
  assert.equal(
    progress,
    '1 of 33 nodes; down: b, n0, n1, n2, n3 and 26 more (bring back or remove what is down)',
  );
  const back = all.map((node) => (node.name === 'b' ? aNode('b') : node));
  assert.deepEqual(plan(back).ask, ['id-b', 'id-z']);
});

test('nodes that do not manage to renew keep the others waiting for a minute only', () => {
  const all = [...nodes(30, { askedAtMs: NOW_MS }), aNode('z')];
  assert.deepEqual(plan(all, NOW_MS + 59_999).ask, []);
  assert.deepEqual(plan(all, NOW_MS + 60_000).ask, ['id-z']);
});

const anyNodes = fc
  .array(
    fc.record({
      state: fc.constantFrom('ready' as const, 'down' as const, 'disconnected' as const, 'unknown' as const),
      issuerDigest: fc.constantFrom('old', NEW, ''),
      trustsNewRoot: fc.boolean(),
      askedAtMs: fc.oneof(fc.constant(0), fc.integer({ min: NOW_MS - 100_000, max: NOW_MS })),
    }),
    { maxLength: 100 },
  )
  .map((all) => all.map((node, index) => aNode(`n${index}`, node)));

test('what is decided twice is asked once, and nobody is asked twice or without need', () => {
  fc.assert(
    fc.property(anyNodes, (all) => {
      const first = plan(all);
      for (const id of first.ask) {
        const node = all.find((candidate) => candidate.id === id);
        assert.ok(node && node.askedAtMs === 0 && !(node.issuerDigest === NEW && node.trustsNewRoot));
      }
      const second = plan(asked(all, first.ask, NOW_MS));
      assert.deepEqual(second.ask, []);
      const { ask: _a, wakeAtMs: _w, ...said } = first;
      const { ask: _b, wakeAtMs: _v, ...saidAgain } = second;
      assert.deepEqual(saidAgain, said);
    }),
  );
});

test('it is finished exactly when everybody has renewed', () => {
  fc.assert(
    fc.property(anyNodes, (all) => {
      const everybody = all.every((node) => node.issuerDigest === NEW && node.trustsNewRoot);
      assert.equal(plan(all).isFinished, everybody);
    }),
  );
});

test('a rotation never has more than the batch under way, and comes to its end by its own timers', () => {
  const steps = fc.array(fc.record({ renewing: fc.nat(40), down: fc.nat(99), up: fc.boolean() }), {
    maxLength: 30,
  });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 120 }), steps, (count, course) => {
      let all = nodes(count);
      let nowMs = NOW_MS;
      const decide = () => {
        const next = plan(all, nowMs);
        all = asked(all, next.ask, nowMs);
        const renewing = all.filter((node) => node.issuerDigest !== NEW && isRenewing(node, nowMs));
        // Who was asked before it went down counts again when it is back, and the batch may be more than full.
        if (next.ask.length > 0) assert.ok(renewing.length <= ROTATION_BATCH_MAX, `${renewing.length}`);
        assert.equal(
          next.isFinished,
          all.every(({ issuerDigest }) => issuerDigest === NEW),
        );
        return next;
      };
      const renewSome = (limit: number) => {
        let left = limit;
        all = all.map((node) =>
          node.askedAtMs > 0 && node.state !== 'down' && left-- > 0 ? { ...node, ...renewed } : node,
        );
      };
      for (const { renewing, down, up } of course) {
        decide();
        renewSome(renewing);
        if (up) all = all.map((node) => ({ ...node, state: 'ready' }));
        else all = all.map((node, index) => (index === down ? { ...node, state: 'down' } : node));
        nowMs += ROTATION_INTERVAL_MS;
      }
      all = all.map((node) => ({ ...node, state: 'ready' }));
      for (let round = 0; round < 10; round++) {
        const next = decide();
        renewSome(all.length);
        nowMs = next.wakeAtMs ?? nowMs;
      }
      assert.equal(decide().isFinished, true);
    }),
  );
});
