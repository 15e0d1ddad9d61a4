// Which tasks a changed service keeps.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Placement, ResourceRequirements, TaskSpec } from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask } from '../../test/support/builders.ts';
import { canStay } from './stay.ts';

const before = aServiceObject('web', 1).spec.task;
const node = aNode('n1');
const there = { nodeOf: () => node, hasRoom: () => true };
const full = { nodeOf: () => node, hasRoom: () => false };
const placed = aTask('s');
const waiting = aTask('s', { nodeId: '', state: 'pending' });

const withPlacement = (placement: Partial<Placement>): TaskSpec => ({
  ...before,
  placement: { ...before.placement, ...placement },
});
const withResources = (resources: Partial<ResourceRequirements>): TaskSpec => ({
  ...before,
  resources: { ...before.resources, ...resources },
});
const elsewhere = withPlacement({ constraints: ['node.id==n2'] });

describe('a task of a changed service stays', () => {
  test('when nothing is new', () => {
    assert.equal(canStay(placed, before, before, full), true);
  });

  test('with other limits', () => {
    const wanted = withResources({ limits: { ...before.resources.limits, memoryBytes: 2 ** 20 } });
    assert.equal(canStay(placed, before, wanted, full), true);
  });

  test('with other reservations, where there is room for them', () => {
    const wanted = withResources({
      reservations: { ...before.resources.reservations, memoryBytes: 2 ** 20 },
    });
    assert.equal(canStay(placed, before, wanted, there), true);
    assert.equal(canStay(placed, before, wanted, full), false);
  });

  test('with another placement, where its node fits that, or while it has none', () => {
    assert.equal(canStay(placed, before, withPlacement({ constraints: ['node.id==n1'] }), there), true);
    assert.equal(canStay(placed, before, elsewhere, there), false);
    assert.equal(canStay(waiting, before, elsewhere, there), true);
  });

  test('where a placement that has not changed does not fit any more: that is for the evictions', () => {
    assert.equal(canStay(placed, elsewhere, elsewhere, there), true);
  });

  test('not with another placement when its node is gone', () => {
    const wanted = withPlacement({ constraints: ['node.role==worker'] });
    assert.equal(canStay(placed, before, wanted, { ...there, nodeOf: () => undefined }), false);
  });

  test('not with anything that its process would feel', () => {
    const wanted = { ...before, container: { ...before.container, image: 'other' } };
    assert.equal(canStay(placed, before, wanted, there), false);
  });
});
