// What nodes hear of themselves and of their cluster.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../../core/generated/objects.ts';
import { aNode } from '../../test/support/builders.ts';
import { newsFor, type SharedNews } from './news.ts';

const shared: SharedNews = { managers: [], roots: 'roots', unlockKey: 'key', nextRoot: undefined };

function aNodeOf(role: Node['role'], shown: Node['role'], issuer = ''): Node {
  const node = aNode('n1');
  const trust = { ...node.description.trust, role: shown, issuer };
  return { ...node, role, description: { ...node.description, trust } };
}

test('a node is told the role that the cluster has it for, not the one that its certificate shows', () => {
  assert.equal(newsFor(shared, aNodeOf('manager', 'worker')).role, 'manager');
  assert.equal(newsFor(shared, aNodeOf('worker', 'manager')).role, 'worker');
});

test('the key of the lock is for managers', () => {
  assert.equal(newsFor(shared, aNodeOf('manager', 'worker')).unlockKey, 'key');
  assert.equal(newsFor(shared, aNodeOf('worker', 'manager')).unlockKey, '');
});

test('a node that was asked to renew hears it until it shows a certificate of the next root', () => {
  const rotating = { ...shared, nextRoot: 'next' };
  const asked = { ...aNodeOf('worker', 'worker', 'old'), renewalAskedAtMs: 1 };

  assert.equal(newsFor(rotating, asked).renewCertificate, true);
  assert.equal(newsFor(rotating, { ...asked, renewalAskedAtMs: 0 }).renewCertificate, false);
  assert.equal(
    newsFor(rotating, { ...aNodeOf('worker', 'worker', 'next'), renewalAskedAtMs: 1 }).renewCertificate,
    false,
  );
  assert.equal(newsFor(shared, asked).renewCertificate, false);
});
