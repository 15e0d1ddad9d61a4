import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { defined } from '../../core/assert.ts';
import type { Task } from '../../core/generated/objects.ts';
import type { Assignments } from '../../proto/generated/dispatcher.ts';
import { aServiceObject, aTask, putInto, removeFrom, tablesOf } from '../../test/support/builders.ts';
import { AssignmentTracker } from './assignments.ts';
import { NetworkDirectory } from './network-directory.ts';

test('a task that takes on another spec goes out with it, and the spec before is forgotten with its last task', () => {
  const first = aServiceObject('s', 2);
  const service = { ...first, specVersion: 2, previousSpec: first.spec, previousSpecVersion: 1 };
  const tasks = [aTask('s', { slot: 1 }), aTask('s', { slot: 2 })];
  const tables = tablesOf([service], tasks);
  const directory = new NetworkDirectory(tables);
  const tracker = new AssignmentTracker('n1');
  const ids = (revisions: readonly { readonly id: string }[] = []) => revisions.map(({ id }) => id);
  assert.deepEqual(ids(tracker.complete(tables, directory).revisions), ['s.1']);

  const adopt = (position: number) => {
    const task = { ...(tasks[position] ?? aTask('s')), specVersion: 2 };
    tracker.note(putInto(tables, 'task', task));
    return tracker.incremental(tables, directory);
  };
  const one = adopt(0);
  assert.deepEqual(
    [ids(one?.revisions), ids(one?.tasks), one?.removedRevisionIds],
    [['s.2'], [tasks[0]?.id], []],
  );
  const other = adopt(1);
  assert.deepEqual([ids(other?.revisions), other?.removedRevisionIds], [[], ['s.1']]);
});

test('what an agent tells of its own tasks is no news to it; a task that ends frees what it needed', () => {
  const task = aTask('s', { state: 'starting' });
  const tables = tablesOf([aServiceObject('s', 1)], [task]);
  const tracker = new AssignmentTracker('n1');
  tracker.complete(tables, new NetworkDirectory(tables));
  const isNews = (object: Task) => tracker.note({ kind: 'task', action: 'updated', object, previous: task });
  const told = (change: Partial<typeof task.status>) =>
    isNews({ ...task, status: { ...task.status, ...change } });

  assert.equal(told({ state: 'running' }), false);
  assert.equal(told({ message: 'still pulling' }), false);
  assert.equal(told({ state: 'failed' }), true);
  assert.equal(isNews({ ...task, desiredState: 'shutdown' }), true);
  assert.equal(isNews({ ...task, specVersion: 2 }), true);
  assert.equal(tracker.note({ kind: 'task', action: 'removed', object: task }), true);
  const other = { ...task, id: 'other', nodeId: 'n2' };
  assert.equal(tracker.note({ kind: 'task', action: 'created', object: other }), false);
});

/** What an agent has after the messages so far. Throws when it could do nothing with one. */
class Agent {
  readonly tasks = new Map<string, string>();
  readonly revisions = new Set<string>();

  hear(message: Assignments): void {
    for (const { id } of message.revisions) this.revisions.add(id);
    for (const { id, serviceId, specVersion, desiredState } of message.tasks) {
      assert.ok(this.revisions.has(`${serviceId}.${specVersion}`), `${id} came without its spec`);
      this.tasks.set(id, `${serviceId}.${specVersion} ${desiredState}`);
    }
    for (const id of message.removedTaskIds) assert.ok(this.tasks.delete(id), `${id} is not known`);
    for (const id of message.removedRevisionIds) assert.ok(this.revisions.delete(id), `${id} is not known`);
  }

  get state(): unknown {
    return [[...this.tasks].sort(), [...this.revisions].sort()];
  }
}

const change = fc.record({
  what: fc.constantFrom('prepare', 'assign', 'stop', 'adopt', 'forget', 'lose spec', 'find spec', 'flush'),
  slot: fc.integer({ min: 0, max: 4 }),
  node: fc.constantFrom('n1', 'n2'),
  version: fc.constantFrom(1, 2),
});

test('differences, one after the other, are always what the store says, each task with its spec', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      const service = aServiceObject('s', 2);
      const tables = tablesOf(
        [{ ...service, specVersion: 2, previousSpec: service.spec, previousSpecVersion: 1 }],
        [{ ...aTask('s'), id: 't0' }],
      );
      const revisions = new Map(
        [1, 2].map((version) => [version, defined(tables.revision.get(`s.${version}`), 'a spec')]),
      );
      const directory = new NetworkDirectory(tables);
      const tracker = new AssignmentTracker('n1');
      const agent = new Agent();
      agent.hear(tracker.complete(tables, directory));
      const flush = () => {
        const message = tracker.incremental(tables, directory);
        if (message !== undefined) agent.hear(message);
      };
      const put = (task: Task) => tracker.note(putInto(tables, 'task', task));
      for (const { what, slot, node, version } of changes) {
        const id = `t${slot}`;
        const known = tables.task.get(id);
        if (what === 'prepare' && known === undefined) {
          // A task of a global service has its node before it may run there.
          const task = aTask('s', { nodeId: version === 1 ? '' : node, state: 'pending' });
          put({ ...task, id, specVersion: version });
        } else if (what === 'assign' && known?.status.state === 'pending') {
          const status = { ...known.status, state: 'assigned' as const };
          put({ ...known, status, nodeId: known.nodeId === '' ? node : known.nodeId });
        } else if (what === 'stop' && known !== undefined) put({ ...known, desiredState: 'shutdown' });
        else if (what === 'adopt' && known !== undefined) put({ ...known, specVersion: version });
        else if (what === 'forget' && known !== undefined) tracker.note(removeFrom(tables, 'task', id));
        else if (what === 'lose spec') tables.delete('revision', `s.${version}`);
        else if (what === 'find spec') tables.put('revision', defined(revisions.get(version), 'a spec'));
        else if (what === 'flush') flush();
      }
      for (const revision of revisions.values()) tables.put('revision', revision);
      flush();

      const fresh = new Agent();
      fresh.hear(new AssignmentTracker('n1').complete(tables, directory));
      assert.deepEqual(agent.state, fresh.state);
    }),
  );
});
