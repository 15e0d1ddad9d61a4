import assert from 'node:assert/strict';
import { test } from 'node:test';
import { aNode } from '../test/support/builders.ts';
import { parsePlacementPreference } from './placement-preference.ts';

test('a preference is the value of a label, of the node or its engine; without the label it is empty', () => {
  const node = aNode('a');
  const labelled = {
    ...node,
    spec: { ...node.spec, labels: { rack: 'r1' } },
    description: { ...node.description, engineLabels: { disk: 'ssd' } },
  };
  assert.equal(parsePlacementPreference('spread=node.labels.rack').valueOf(labelled), 'r1');
  assert.equal(parsePlacementPreference('spread=engine.labels.disk').valueOf(labelled), 'ssd');
  assert.equal(parsePlacementPreference('spread=node.labels.rack').valueOf(node), '');
  assert.equal(parsePlacementPreference('spread=node.labels.rack').key, 'node.labels.rack');
});

test('anything else is refused by the name of the flag', () => {
  for (const text of [
    '',
    'node.labels.rack',
    'spread=',
    'spread=node.id',
    'spread=node.labels.',
    'pack=node.labels.a',
  ])
    assert.throws(
      () => parsePlacementPreference(text),
      /placement-pref: .* must be spread=node\.labels\.LABEL/,
    );
});
