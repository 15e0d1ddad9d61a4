// Node's own readers of addresses are the second opinion; fast-check prints the seed of a disagreement.

import assert from 'node:assert/strict';
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Address,
  addressBits,
  contains,
  covers,
  formatAddress,
  formatPrefix,
  lastAddress,
  overlaps,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixOf,
  prefixSize,
} from './ip-address.ts';

const family = fc.constantFrom(4 as const, 6 as const);
const address: fc.Arbitrary<Address> = family.chain((of) =>
  fc.bigInt({ min: 0n, max: (1n << BigInt(addressBits(of))) - 1n }).map((value) => ({ family: of, value })),
);
/** Groups of IPv6 that are often zero, where its text is difficult. */
const sparse = fc
  .array(fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 0xffffn })), { minLength: 8, maxLength: 8 })
  .map(
    (groups): Address => ({ family: 6, value: groups.reduce((value, group) => (value << 16n) | group, 0n) }),
  );
const prefix: fc.Arbitrary<Prefix> = address.chain((of) =>
  fc.nat(addressBits(of.family)).map((length) => prefixOf(of, length)),
);
/** Two of one neighbourhood, so that they often have something in common. */
const neighbours = fc
  .tuple(address, fc.nat(12), fc.nat(12), fc.bigInt({ min: 0n, max: 0xfffn }))
  .map(([of, a, b, flipped]): [Prefix, Prefix] => {
    const bits = addressBits(of.family);
    return [prefixOf(of, bits - a), prefixOf({ ...of, value: of.value ^ flipped }, bits - b)];
  });

const writing = fc.oneof(
  fc.string({ unit: fc.constantFrom(...'0123456789abcfF.:/%'), maxLength: 42 }),
  address.map(formatAddress),
  sparse.map((of) => formatAddress(of).replace('::', ':')),
);

test('an address that was written is read as the same', () => {
  fc.assert(
    fc.property(fc.oneof(address, sparse), (of) => assert.deepEqual(parseAddress(formatAddress(of)), of)),
  );
});

test('what is an address, node:net knows as well', () => {
  fc.assert(
    fc.property(writing, (text) => {
      const read = parseAddress(text);
      assert.equal(read?.family === 4, isIPv4(text), text);
      assert.equal(read?.family === 6, isIPv6(text) && !text.includes('%'), text);
    }),
    { numRuns: 2_000 },
  );
});

test('IPv6 is written as URLs write it', () => {
  fc.assert(
    fc.property(sparse, (of) => {
      fc.pre(of.value >> 32n !== 0xffffn);
      assert.equal(`[${formatAddress(of)}]`, new URL(`http://[${formatAddress(of)}]`).hostname);
    }),
  );
});

test('IPv6 has one way to be written', () => {
  const cases: [string, string][] = [
    ['::', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['2001:DB8::', '2001:db8::'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['fd00:0001::00ab', 'fd00:1::ab'],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.1'],
    ['::ffff:a00:1', '::ffff:10.0.0.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ];
  for (const [written, canonical] of cases) {
    const of = parseAddress(written);
    assert.equal(of && formatAddress(of), canonical, written);
  }
});

test('what only looks like an address is none', () => {
  for (const text of [
    '',
    '10.0.0',
    '10.0.0.256',
    '10.0.0.01',
    '10.0.0.0.1',
    ' 10.0.0.1',
    '10.0.0.1/32',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    '12345::',
    'fe80::1%eth0',
    '10.0.0.1::',
    '::10.0.0.1:1',
    ':1:2:3:4:5:6:7',
  ])
    assert.equal(parseAddress(text), undefined, text);
});

test('a prefix that was written is read as the same', () => {
  fc.assert(fc.property(prefix, (of) => assert.deepEqual(parsePrefix(formatPrefix(of)), of)));
});

test('bits behind a prefix are refused unless they are to be dropped', () => {
  assert.equal(parsePrefix('10.0.1.7/24'), undefined);
  assert.deepEqual(parsePrefix('10.0.1.7/24', { dropsHostBits: true }), parsePrefix('10.0.1.0/24'));
  assert.equal(formatPrefix(parsePrefix('FD00::/8') as Prefix), 'fd00::/8');
  for (const text of [
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '::/129',
    '10.0.0/8',
  ])
    assert.equal(parsePrefix(text, { dropsHostBits: true }), undefined, text);
});

test('a prefix contains what node:net finds in the same subnet', () => {
  fc.assert(
    fc.property(neighbours, ([of, { family: type, base }]) => {
      const list = new BlockList();
      const name = type === 4 ? 'ipv4' : 'ipv6';
      list.addSubnet(formatAddress({ family: type, value: of.base }), of.length, name);
      const candidate: Address = { family: type, value: base };
      assert.equal(contains(of, candidate), list.check(formatAddress(candidate), name));
    }),
  );
});

test('a prefix has its first and its last address and not those around it', () => {
  fc.assert(
    fc.property(prefix, (of) => {
      const has = (value: bigint) => contains(of, { family: of.family, value });
      const end = of.base + prefixSize(of);
      assert.ok(has(of.base) && has(lastAddress(of).value));
      assert.ok(!has(of.base - 1n) && (end >> BigInt(addressBits(of.family)) > 0n || !has(end)));
    }),
  );
});

test('two prefixes overlap when one has the other, and then their ranges do', () => {
  fc.assert(
    fc.property(neighbours, ([a, b]) => {
      const isMeeting = a.base < b.base + prefixSize(b) && b.base < a.base + prefixSize(a);
      assert.equal(overlaps(a, b), isMeeting);
      assert.equal(overlaps(a, b), overlaps(b, a));
      assert.equal(overlaps(a, b), covers(a, b) || covers(b, a));
    }),
  );
});

test('the families never meet', () => {
  const all = [parsePrefix('0.0.0.0/0') as Prefix, parsePrefix('::/0') as Prefix] as const;
  assert.ok(!overlaps(...all) && !covers(...all));
  assert.ok(!contains(all[1], parseAddress('10.0.0.1') as Address));
});
