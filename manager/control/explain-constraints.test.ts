// `why` of a task that no node is right for: which of its constraints is to blame, and what would help.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Node } from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { explain } from './explain.ts';
import { planServiceRequest } from './plan-request.ts';

const REFUSED = 'no suitable node (scheduling constraints not satisfied on 3 nodes)';

function aLabelled(
  id: string,
  labels: Record<string, string>,
  availability: Node['spec']['availability'] = 'active',
) {
  const node = aNode(id);
  return { ...node, spec: { ...node.spec, labels, availability } };
}

const nodes = [
  aLabelled('n1', { zone: 'a' }),
  aLabelled('n2', { zone: 'b', disk: 'ssd' }, 'drain'),
  aLabelled('n3', { zone: 'b' }),
];

function asking(...constraints: string[]) {
  return aServiceObject('s', 1, (spec) => ({
    ...spec,
    task: { ...spec.task, placement: { ...spec.task.placement, constraints } },
  }));
}

function why(...constraints: string[]) {
  const waiting = aTask('s', { nodeId: '', state: 'pending' });
  const task = { ...waiting, status: { ...waiting.status, error: REFUSED } };
  const tables = tablesOf([asking(...constraints)], [task], nodes);
  const { steps } = explain(tables, { target: 's', kind: '' }, NOW_MS);
  return {
    constraints: steps.filter(({ subject }) => subject === 'constraint').map(({ ok, text }) => [ok, text]),
    remedy: steps.find(({ subject }) => subject === 'scheduler')?.remedy,
  };
}

describe('why of a task that waits for its constraints', () => {
  test('says of each how many nodes satisfy it, and how many of those take tasks', () => {
    assert.deepEqual(why('node.labels.zone==b', 'node.labels.disk==ssd', 'node.role!=manager').constraints, [
      [true, 'node.labels.zone==b: satisfied by 2 of 3 nodes, of which 1 take tasks'],
      [false, 'node.labels.disk==ssd: satisfied by 1 of 3 nodes, of which 0 take tasks'],
      [true, 'node.role!=manager: satisfied by 3 of 3 nodes, of which 2 take tasks'],
    ]);
  });

  test('advises about the one that the fewest satisfy: to label a node where that would help', () => {
    assert.equal(
      why('node.labels.zone==b', 'node.labels.disk==nvme').remedy,
      "label a node (tsswarm node update --label-add disk=nvme NODE) or change it: tsswarm service update --constraint-rm 'node.labels.disk==nvme' s",
    );
    assert.equal(
      why('node.platform.arch==arm64').remedy,
      "change it: tsswarm service update --constraint-rm 'node.platform.arch==arm64' s",
    );
  });
});

test('a great many that wait are told of in a moment', () => {
  const error = 'no suitable node (insufficient resources on 3 nodes)';
  const waiting = Array.from({ length: 100_000 }, (_, index) => {
    const task = aTask('s', { slot: index + 1, nodeId: '', state: 'pending' });
    return { ...task, status: { ...task.status, error } };
  });
  const tables = tablesOf([asking()], waiting, nodes);
  const { steps } = explain(tables, { target: 's', kind: '' }, NOW_MS);
  assert.match(steps[1]?.text ?? '', /and 99999 more for the same reason/);
});

test('a service that is only planned is not to be updated', () => {
  const { spec } = asking('node.labels.disk==nvme');
  const request = { serviceId: '', version: 0, spec };
  const { steps } = planServiceRequest(tablesOf([], [], nodes), request, NOW_MS);
  assert.equal(
    steps.find(({ ok }) => !ok)?.remedy,
    "label a node (tsswarm node update --label-add disk=nvme NODE) or ask for another --constraint than 'node.labels.disk==nvme'",
  );
});
