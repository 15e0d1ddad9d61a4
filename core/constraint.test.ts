import assert from 'node:assert/strict';
import { test } from 'node:test';
import { matchesConstraint, parseConstraint } from './constraint.ts';
import { emptyMeta, emptyNodeDescription, type Node } from './generated/objects.ts';

const node: Node = {
  id: 'abc',
  meta: emptyMeta,
  spec: { name: '', labels: { Zone: 'eu-1' }, availability: 'active', desiredRole: 'manager' },
  description: {
    ...emptyNodeDescription,
    hostname: 'box',
    platform: { os: 'linux', architecture: 'x86_64' },
    engineLabels: { storage: 'fast' },
  },
  status: { state: 'ready', message: '', address: '10.1.2.3', sinceMs: 0 },
  role: 'manager',
  roleMessage: '',
  renewalAskedAtMs: 0,
  dataPathAddress: '',
  tunnelAddress: '',
};

test('every key of Swarm is compared, without regard to case', () => {
  const table: [string, boolean][] = [
    ['node.id==abc', true],
    ['node.id == ABC', true],
    ['node.hostname!=box', false],
    ['node.role==manager', true],
    ['node.role!=worker', true],
    ['node.platform.os==linux', true],
    ['node.labels.Zone==eu-1', true],
    ['node.labels.zone==eu-1', false],
    ['node.labels.missing!=x', true],
    ['engine.labels.storage==FAST', true],
    ['node.ip==10.1.2.3', true],
    ['node.ip==10.1.0.0/16', true],
    ['node.ip!=10.2.0.0/16', true],
  ];
  for (const [text, expected] of table)
    assert.equal(matchesConstraint(parseConstraint(text), node), expected, text);
});

test('architectures have one name each', () => {
  assert.equal(matchesConstraint(parseConstraint('node.platform.arch==amd64'), node), true);
});

test('a constraint that could never match is refused, naming the text and what would be right', () => {
  for (const text of [
    '',
    'node.id',
    'node.id=abc',
    'node.foo==1',
    'node.labels.==1',
    'label==x',
    'node.role==',
    'node.id==a;b',
  ])
    assert.throws(() => parseConstraint(text), { code: 'invalid-argument', message: /constraint "/ }, text);
});
