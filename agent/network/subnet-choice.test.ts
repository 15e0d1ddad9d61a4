import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPrefix, parseIpv4, parsePrefix, prefixesOverlap } from './ipv4.ts';
import { defaultSubnets, planLink, planSubnet } from './subnet-choice.ts';

test('the first subnet that overlaps nothing in use is chosen', () => {
  const used = ['10.0.0.0/24', '10.186.7.0/24'].map(parsePrefix);

  assert.equal(formatPrefix(planSubnet(defaultSubnets, [])), '10.186.0.0/16');
  assert.equal(formatPrefix(planSubnet(defaultSubnets, used)), '10.187.0.0/16');
});

test('a node that routes every candidate is told to name a subnet', () => {
  const used = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16'].map(parsePrefix);

  assert.throws(() => planSubnet(defaultSubnets, used), { code: 'failed-precondition' });
});

test('the link of an engine is stable, unlike that of others, and skips what is in use', () => {
  const link = planLink('one', []);

  assert.deepEqual(planLink('one', []), link);
  assert.notDeepEqual(planLink('two', []), link);
  assert.ok(!prefixesOverlap(planLink('one', [link]), link));
  assert.ok(prefixesOverlap(link, parsePrefix('169.254.64.0/18')));
});

test('what is not an IPv4 address or network is refused', () => {
  for (const text of ['', '1.2.3', '1.2.3.256', '::1', '1.2.3.4 ']) assert.equal(parseIpv4(text), undefined);
  for (const text of ['10.0.0.0', '10.0.0.1/24', '10.0.0.0/33', '10.0.0.0/']) {
    assert.throws(() => parsePrefix(text), { code: 'invalid-argument' });
  }
});
