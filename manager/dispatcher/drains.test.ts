import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyNetworkEndpoint } from '../../proto/generated/dispatcher.ts';
import { Drains } from './drains.ts';

function drains(): { drains: Drains; told: string[] } {
  const told: string[] = [];
  return { drains: new Drains((nodeId, taskIds) => told.push(`${nodeId}: ${taskIds.join(' ')}`)), told };
}

const endpoint = (taskId: string, nodeId: string) => ({ ...emptyNetworkEndpoint, taskId, nodeId });

test('a task hears that it is drained when the last node has applied it', () => {
  const { drains: some, told } = drains();
  some.begin(
    [endpoint('t1', 'n1'), endpoint('t2', 'n2')],
    [
      ['a', 3],
      ['b', 7],
    ],
  );
  some.applied('a', 2);
  some.applied('b', 7);
  assert.deepEqual(told, []);
  some.applied('a', 3);
  assert.deepEqual(told, ['n1: t1', 'n2: t2']);
});

test('a node that goes is not waited for, and with nobody to wait for it is told at once', () => {
  const { drains: some, told } = drains();
  some.begin([endpoint('t1', 'n1')], [['a', 3]]);
  some.sessionEnded('a');
  some.begin([endpoint('t2', 'n1'), endpoint('t2', 'n1')], []);
  assert.deepEqual(told, ['n1: t1', 'n1: t2']);
});
