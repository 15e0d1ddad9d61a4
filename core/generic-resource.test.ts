import assert from 'node:assert/strict';
import { test } from 'node:test';
import { genericResourceEnv, parseGenericRequest, parseGenericResources } from './generic-resource.ts';

test('a node has so many of a kind, or each by its name', () => {
  assert.deepEqual(parseGenericResources(['GPU=card0', 'SSD=3', 'GPU=card1']), [
    { kind: 'GPU', count: 2, names: ['card0', 'card1'] },
    { kind: 'SSD', count: 3, names: [] },
  ]);
});

test('what cannot be a resource is refused with the option', () => {
  for (const texts of [
    ['GPU'],
    ['GPU='],
    ['=3'],
    ['GPU=a,b'],
    ['GPU=1', 'GPU=2'],
    ['GPU=a', 'GPU=a'],
    ['GPU=1', 'GPU=a'],
  ])
    assert.throws(() => parseGenericResources(texts), /^SwarmError: node-generic-resource: /, texts.join());
  for (const text of ['GPU', 'GPU=card0', 'GPU=0', 'GPU=-1', 'GPU=1.5'])
    assert.throws(() => parseGenericRequest(text), /generic-resource: .* must be KIND=COUNT/, text);
});

test('a task finds in its environment what it was given, named as Docker does', () => {
  const given = parseGenericResources(['gpu=card0', 'gpu=card1', 'SSD=3']);
  assert.deepEqual(genericResourceEnv(given), ['DOCKER_RESOURCE_GPU=card0,card1', 'DOCKER_RESOURCE_SSD=3']);
});
