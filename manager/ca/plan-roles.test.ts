import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  demotionRefusal,
  planRoles,
  type RoleMember,
  type RoleNode,
  type RoleSituation,
} from './plan-roles.ts';

const NOW_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

const aWorker = (id: string, change: Partial<RoleNode> = {}): RoleNode => ({
  id,
  name: `name-${id}`,
  role: 'worker',
  desiredRole: 'worker',
  state: 'ready',
  sinceMs: NOW_MS - HOUR_MS,
  ...change,
});
const aManager = (id: string, change: Partial<RoleNode> = {}): RoleNode =>
  aWorker(id, { role: 'manager', desiredRole: 'manager', ...change });
const demoted = { desiredRole: 'worker' } as const;
const lost = { unreachableSinceMs: NOW_MS - HOUR_MS };
const aVoter = (nodeId: string, change: Partial<RoleMember> = {}): RoleMember => ({
  nodeId,
  isVoter: true,
  ...change,
});

/** Managers as given, all of them reachable voters, led by "a". */
function situation(nodes: readonly RoleNode[], change: Partial<RoleSituation> = {}): RoleSituation {
  return {
    nodes,
    members: nodes.filter(({ role }) => role === 'manager').map(({ id }) => aVoter(id)),
    selfId: 'a',
    isChangingMembers: false,
    nowMs: NOW_MS,
    deadManagerAfterMs: 0,
    departedNodeAfterMs: 0,
    ...change,
  };
}
const reasons = (of: RoleSituation) => planRoles(of).refusals.map(({ reason }) => reason);

test('nothing is done where everybody is what it should be', () => {
  assert.deepEqual(planRoles(situation([aManager('a'), aWorker('w')])), { actions: [], refusals: [] });
});

test('a promoted worker becomes a manager at once', () => {
  const { actions } = planRoles(situation([aManager('a'), aWorker('w', { desiredRole: 'manager' })]));
  assert.deepEqual(actions, [{ kind: 'set-role', nodeId: 'w', role: 'manager' }]);
});

test('a demoted manager first leaves the members, and becomes a worker when it has', () => {
  const nodes = [aManager('a'), aManager('b', demoted), aManager('c')];
  assert.deepEqual(planRoles(situation(nodes)).actions, [{ kind: 'remove-member', nodeId: 'b' }]);
  const without = situation(nodes, { members: [aVoter('a'), aVoter('c')] });
  assert.deepEqual(planRoles(without).actions, [{ kind: 'set-role', nodeId: 'b', role: 'worker' }]);
});

test('one manager leaves at a time, and none while members are changing', () => {
  const nodes = [aManager('a'), aManager('b', demoted), aManager('c', demoted), aManager('d')];
  assert.deepEqual(planRoles(situation(nodes)), {
    actions: [{ kind: 'remove-member', nodeId: 'b' }],
    refusals: [],
  });
  assert.deepEqual(planRoles(situation(nodes, { isChangingMembers: true })), { actions: [], refusals: [] });
});

test('a demoted leader hands over to a reachable voter that stays, after the others have gone', () => {
  const self = aManager('a', demoted);
  const nodes = [self, aManager('b'), aManager('c'), aManager('d'), aManager('l')];
  const members = [aVoter('a'), aVoter('b', lost), aVoter('l', { isVoter: false }), aVoter('c'), aVoter('d')];
  const transfer = { kind: 'transfer-leadership', toNodeId: 'c' };
  assert.deepEqual(planRoles(situation(nodes, { members })).actions, [transfer]);
  const both = [self, aManager('b'), aManager('c', demoted), aManager('d')];
  assert.deepEqual(planRoles(situation(both)).actions, [{ kind: 'remove-member', nodeId: 'c' }]);
});

test('a leader that nobody can follow is not demoted', () => {
  const nodes = [aManager('a', demoted), aManager('b'), aWorker('w')];
  const members = [aVoter('a'), aVoter('b', { isVoter: false })];
  assert.deepEqual(reasons(situation(nodes, { members })), [
    'name-a cannot become a worker: it is the last manager that takes part in decisions',
  ]);
});

test('the last manager is never demoted, wherever the log is kept', () => {
  const nodes = [aManager('a', demoted), aWorker('w')];
  for (const members of [[aVoter('a')], []])
    assert.deepEqual(planRoles(situation(nodes, { members })), {
      actions: [],
      refusals: [{ nodeId: 'a', reason: 'name-a cannot become a worker: it is the last manager' }],
    });
});

test('of two managers without a log of their own one stays, even when both are demoted', () => {
  const nodes = [aManager('a', demoted), aManager('b', demoted)];
  const plan = planRoles(situation(nodes, { members: [] }));
  assert.deepEqual(plan.actions, [{ kind: 'set-role', nodeId: 'b', role: 'worker' }]);
  assert.equal(plan.refusals.length, 1);
});

test('a demotion that would cost the quorum is refused with its numbers', () => {
  const nodes = [aManager('a'), aManager('b', demoted), aManager('c')];
  const members = [aVoter('a'), aVoter('b'), aVoter('c', lost)];
  const reason = 'it would leave 1 of 2 managers reachable, 2 are needed';
  assert.deepEqual(planRoles(situation(nodes, { members })), {
    actions: [],
    refusals: [{ nodeId: 'b', reason: `name-b cannot become a worker: ${reason}` }],
  });
  assert.equal(demotionRefusal('b', situation(nodes, { members })), reason);
  assert.equal(demotionRefusal('c', situation(nodes, { members })), undefined);
});

test('those who are lost leave first, for then the others can be spared', () => {
  const nodes = [aManager('a'), aManager('b', demoted), aManager('c', demoted)];
  const members = [aVoter('a'), aVoter('b'), aVoter('c', lost)];
  assert.deepEqual(planRoles(situation(nodes, { members })), {
    actions: [{ kind: 'remove-member', nodeId: 'c' }],
    refusals: [],
  });
});

test('a member that only listens can always be spared', () => {
  const nodes = [aManager('a'), aManager('b'), aManager('l', demoted)];
  const members = [aVoter('a'), aVoter('b', lost), aVoter('l', { isVoter: false })];
  assert.deepEqual(planRoles(situation(nodes, { members })).actions, [
    { kind: 'remove-member', nodeId: 'l' },
  ]);
});

test('a member whose node was removed leaves', () => {
  const nodes = [aManager('a'), aManager('b'), aManager('c')];
  const members = [...nodes.map(({ id }) => aVoter(id)), aVoter('gone', lost)];
  const { actions } = planRoles(situation(nodes, { members }));
  assert.deepEqual(actions, [{ kind: 'remove-member', nodeId: 'gone' }]);
});

test('a leader whose node was removed hands over, so that another can let it go', () => {
  const nodes = [aManager('b'), aManager('c')];
  const members = [aVoter('a'), aVoter('b'), aVoter('c')];
  const { actions } = planRoles(situation(nodes, { members }));
  assert.deepEqual(actions, [{ kind: 'transfer-leadership', toNodeId: 'b' }]);
});

test('a manager that is lost for too long is demoted, where three stay and can go on', () => {
  const nodes = ['a', 'b', 'c', 'd', 'e'].map((id) => aManager(id));
  const members = [aVoter('a'), aVoter('b'), aVoter('c'), aVoter('d', lost), aVoter('e', lost)];
  const since = (deadManagerAfterMs: number, change: Partial<RoleSituation> = {}) =>
    planRoles(situation(nodes, { members, deadManagerAfterMs, ...change }));
  assert.deepEqual(since(0), { actions: [], refusals: [] });
  assert.deepEqual(since(HOUR_MS + 1), { actions: [], refusals: [], wakeAtMs: NOW_MS + 1 });
  assert.deepEqual(since(HOUR_MS).actions, [{ kind: 'demote', nodeId: 'd' }], 'one, not both');
  assert.deepEqual(since(HOUR_MS, { isChangingMembers: true }).actions, []);
  const next = nodes.map((node) => (node.id === 'd' ? { ...node, ...demoted } : node));
  assert.deepEqual(since(HOUR_MS, { nodes: next }).actions, [{ kind: 'remove-member', nodeId: 'd' }]);
  const orphan = [aVoter('a'), aVoter('b'), aVoter('e', lost), aVoter('gone', lost)];
  const { actions } = since(HOUR_MS, { members: orphan, nodes: nodes.slice(0, 2).concat(nodes.slice(4)) });
  assert.ok(
    !actions.some(({ kind }) => kind === 'demote'),
    'who is about to leave does not count as staying',
  );
  const three = [aVoter('a'), aVoter('b'), aVoter('e', lost)];
  assert.deepEqual(since(HOUR_MS, { members: three }), { actions: [], refusals: [] });
});

test('a worker that is down for too long is removed; a manager, and who just left, is not', () => {
  const long = { state: 'down', sinceMs: NOW_MS - HOUR_MS } as const;
  const nodes = [
    aManager('a'),
    aManager('b', long),
    aWorker('gone', long),
    aWorker('promoted', { ...long, desiredRole: 'manager' }),
    aWorker('member', long),
    aWorker('new', { ...long, sinceMs: NOW_MS - 1 }),
    aWorker('up'),
    aWorker('away', { ...long, state: 'disconnected' }),
  ];
  const members = [aVoter('a'), aVoter('b'), aVoter('member')];
  const plan = planRoles(situation(nodes, { members, departedNodeAfterMs: HOUR_MS }));
  const removed = plan.actions.filter(({ kind }) => kind === 'remove-node');
  assert.deepEqual(removed, [{ kind: 'remove-node', nodeId: 'gone' }]);
  assert.equal(plan.wakeAtMs, NOW_MS - 1 + HOUR_MS);
  const never = planRoles(situation(nodes, { members })).actions;
  assert.ok(!never.some(({ kind }) => kind === 'remove-node'));
});

// --- random clusters ---

type Event =
  | { readonly kind: 'wish'; readonly which: number; readonly role: RoleNode['role'] }
  | { readonly kind: 'turn'; readonly which: number; readonly isReachable: boolean }
  | { readonly kind: 'join' | 'vote' | 'remove'; readonly which: number }
  | { readonly kind: 'wait'; readonly hours: number };

const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.record({
    kind: fc.constant('wish' as const),
    which: fc.nat(20),
    role: fc.constantFrom('worker' as const, 'manager' as const),
  }),
  fc.record({ kind: fc.constant('turn' as const), which: fc.nat(20), isReachable: fc.boolean() }),
  fc.record({
    kind: fc.constantFrom('join' as const, 'vote' as const, 'remove' as const),
    which: fc.nat(20),
  }),
  fc.record({ kind: fc.constant('wait' as const), hours: fc.nat(5) }),
);

/** A cluster in which actions are done as they are planned, and things happen in between. */
class Model {
  nodes: RoleNode[];
  members: RoleMember[];
  selfId = 'm0';
  nowMs = NOW_MS;
  readonly #delays: Pick<RoleSituation, 'deadManagerAfterMs' | 'departedNodeAfterMs'>;

  constructor(managers: number, workers: number, delayHours: number) {
    const ids = (prefix: string, count: number) =>
      Array.from({ length: count }, (_, index) => prefix + index);
    this.nodes = [
      ...ids('m', managers).map((id) => aManager(id)),
      ...ids('w', workers).map((id) => aWorker(id)),
    ];
    this.members = ids('m', managers).map((id) => aVoter(id));
    this.#delays = { deadManagerAfterMs: delayHours * HOUR_MS, departedNodeAfterMs: delayHours * HOUR_MS };
  }

  get situation(): RoleSituation {
    const { nodes, members, selfId, nowMs } = this;
    return { nodes, members, selfId, nowMs, isChangingMembers: false, ...this.#delays };
  }

  get hasQuorum(): boolean {
    const voters = this.members.filter(({ isVoter }) => isVoter);
    return voters.filter((voter) => voter.unreachableSinceMs === undefined).length > voters.length / 2;
  }

  setNode(id: string, change: Partial<RoleNode>): void {
    this.nodes = this.nodes.map((node) => (node.id === id ? { ...node, ...change } : node));
  }

  happen(event: Event): void {
    if (event.kind === 'wait') {
      this.nowMs += event.hours * HOUR_MS;
      return;
    }
    // A cluster without a quorum decides nothing: machines come and go, but nobody can ask for anything.
    if (event.kind !== 'turn' && !this.hasQuorum) return;
    const node = this.nodes[event.which % this.nodes.length] as RoleNode;
    const member = this.members.find(({ nodeId }) => nodeId === node.id);
    if (event.kind === 'wish') this.setNode(node.id, { desiredRole: event.role });
    if (event.kind === 'turn' && node.id !== this.selfId) this.turn(node.id, event.isReachable);
    if (event.kind === 'join' && node.role === 'manager' && node.state === 'ready' && member === undefined)
      this.members = [...this.members, aVoter(node.id, { isVoter: false })];
    // By force, whatever it is.
    if (event.kind === 'remove' && node.id !== this.selfId)
      this.nodes = this.nodes.filter((other) => other !== node);
    // As Raft does it: who votes has been reached.
    if (event.kind === 'vote' && member?.unreachableSinceMs === undefined)
      this.members = this.members.map((other) => (other === member ? aVoter(other.nodeId) : other));
  }

  turn(id: string, isReachable: boolean): void {
    this.setNode(id, { state: isReachable ? 'ready' : 'down', sinceMs: this.nowMs });
    this.members = this.members.map(({ unreachableSinceMs: since, ...member }) => {
      if (member.nodeId === id)
        return isReachable ? member : { ...member, unreachableSinceMs: since ?? this.nowMs };
      return since === undefined ? member : { ...member, unreachableSinceMs: since };
    });
  }

  /** Does what is planned, all of it, and checks what must hold after every step. Returns how much was done. */
  execute(): number {
    const { actions } = planRoles(this.situation);
    const changes = actions.filter(({ kind }) => kind === 'remove-member' || kind === 'transfer-leadership');
    assert.ok(changes.length <= 1, 'one change of members at a time');
    for (const action of actions) {
      const hadQuorum = this.hasQuorum;
      switch (action.kind) {
        case 'transfer-leadership': {
          const next = this.members.find(({ nodeId }) => nodeId === action.toNodeId);
          assert.ok(next?.isVoter && next.unreachableSinceMs === undefined, 'leaders are reachable voters');
          this.selfId = action.toNodeId;
          break;
        }
        case 'remove-member':
          assert.notEqual(action.nodeId, this.selfId);
          this.members = this.members.filter(({ nodeId }) => nodeId !== action.nodeId);
          break;
        case 'set-role':
          if (action.role === 'worker')
            assert.ok(
              !this.members.some(({ nodeId }) => nodeId === action.nodeId),
              'no member becomes a worker',
            );
          this.setNode(action.nodeId, { role: action.role });
          break;
        case 'demote':
          this.setNode(action.nodeId, demoted);
          break;
        case 'remove-node':
          this.nodes = this.nodes.filter(({ id }) => id !== action.nodeId);
      }
      assert.ok(!hadQuorum || this.hasQuorum, `${action.kind} ${JSON.stringify(action)} has cost the quorum`);
      assert.ok(this.members.some(({ nodeId, isVoter }) => isVoter && nodeId === this.selfId));
      assert.ok(
        this.nodes.some(({ id, role }) => role === 'manager' && id === this.selfId),
        'a manager stays',
      );
    }
    return actions.length;
  }
}

const cluster = [fc.integer({ min: 1, max: 7 }), fc.nat(4), fc.nat(3)] as const;
const RUNS = { numRuns: 1_000 };

test('no plan costs the quorum or the last manager, whatever happens in between', () => {
  fc.assert(
    fc.property(
      ...cluster,
      fc.array(anyEvent, { maxLength: 40 }),
      (managers, workers, delayHours, events) => {
        const model = new Model(managers, workers, delayHours);
        for (const event of events) {
          model.happen(event);
          model.execute();
        }
      },
    ),
    RUNS,
  );
});

test('when all are reachable and things are quiet, everybody becomes what it should be', () => {
  fc.assert(
    fc.property(
      ...cluster,
      fc.array(anyEvent, { maxLength: 20 }),
      (managers, workers, delayHours, events) => {
        const model = new Model(managers, workers, delayHours);
        for (const event of events) {
          model.happen(event);
          model.execute();
        }
        for (const { id } of model.nodes) model.turn(id, true);
        for (let round = 0; round < 40 && model.execute() > 0; round++);
        assert.equal(model.execute(), 0, 'it comes to rest');
        const wrong = model.nodes.filter(({ role, desiredRole }) => role !== desiredRole);
        const isLast = !model.members.some(({ nodeId, isVoter }) => isVoter && nodeId !== model.selfId);
        assert.ok(wrong.every(({ id }) => id === model.selfId && isLast));
        assert.deepEqual(planRoles(model.situation).refusals.length, wrong.length);
      },
    ),
    RUNS,
  );
});

test('the same situation gives the same plan, and planning changes nothing', () => {
  fc.assert(
    fc.property(
      ...cluster,
      fc.array(anyEvent, { maxLength: 20 }),
      (managers, workers, delayHours, events) => {
        const model = new Model(managers, workers, delayHours);
        for (const event of events) model.happen(event);
        const before = structuredClone(model.situation);
        assert.deepEqual(planRoles(model.situation), planRoles(before));
        assert.deepEqual(model.situation, before);
      },
    ),
  );
});

test('a worker that became a member while it was demoted leaves the members again', () => {
  const members = [aVoter('a'), aVoter('w', { isVoter: false })];
  const { actions } = planRoles(situation([aManager('a'), aWorker('w')], { members }));

  assert.deepEqual(actions, [{ kind: 'remove-member', nodeId: 'w' }]);
});
