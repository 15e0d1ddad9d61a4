import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptySubnet } from '../../core/generated/objects.ts';
import { AddressSpace, RESERVED_MS } from './address-space.ts';

const HOUR_MS = 3_600_000;

function space(subnet: string, rest: Partial<typeof emptySubnet> = {}): AddressSpace {
  return new AddressSpace({
    ...emptySubnet,
    subnet,
    gateway: `${subnet.split(/[./]/, 3).join('.')}.1`,
    ...rest,
  });
}

function allocate(addresses: AddressSpace, owner: string, nowMs: number): string | undefined {
  const address = addresses.find(nowMs);
  if (address !== undefined) addresses.take(address, owner);
  return address;
}

test('addresses are given out in turn, without the network, gateway and broadcast addresses', () => {
  const addresses = space('10.0.1.0/29');
  const given = Array.from({ length: 6 }, (_, index) => allocate(addresses, `t${index}`, 0));
  assert.deepEqual(given, ['10.0.1.2', '10.0.1.3', '10.0.1.4', '10.0.1.5', '10.0.1.6', undefined]);
  assert.equal(addresses.capacity, 5);
});

test('a range and auxiliary addresses are kept to', () => {
  const addresses = space('10.0.1.0/24', {
    ipRange: '10.0.1.8/30',
    auxiliaryAddresses: { router: '10.0.1.9' },
  });
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((owner) => allocate(addresses, owner, 0)),
    ['10.0.1.8', '10.0.1.10', '10.0.1.11', undefined],
  );
});

test('an address that was given back is not the next one', () => {
  const addresses = space('10.0.1.0/24');
  const first = allocate(addresses, 'a', 0) as string;
  addresses.release(first, 'a', 0);
  assert.notEqual(allocate(addresses, 'b', 1), first);
});

test('where there is no other, an address that was given back is taken again after a while, and not before', () => {
  const addresses = space('10.0.1.0/30');
  const only = allocate(addresses, 'a', 0) as string;
  addresses.release(only, 'a', 1_000);
  assert.equal(allocate(addresses, 'b', 1_000 + RESERVED_MS - 1), undefined);
  assert.equal(addresses.nextFreeAtMs(1_000), 1_000 + RESERVED_MS);
  assert.equal(addresses.nextFreeAtMs(1_000 + RESERVED_MS), undefined);
  assert.equal(allocate(addresses, 'b', 1_000 + RESERVED_MS), only);
});

test('what somebody has is claimed by nobody else, nor is what nobody may have', () => {
  const addresses = space('10.0.1.0/24');
  assert.equal(addresses.claim('10.0.1.7', 'a'), true);
  assert.equal(addresses.claim('10.0.1.7', 'a'), true);
  assert.equal(addresses.claim('10.0.1.7', 'b'), false);
  assert.equal(addresses.claim('10.0.1.1', 'b'), false);
  assert.equal(addresses.claim('10.0.2.7', 'b'), false);
  addresses.release('10.0.1.7', 'b', 0);
  assert.equal(addresses.claim('10.0.1.7', 'b'), false);
});

test('IPv6 subnets of any size are counted out', () => {
  const addresses = space('fd00:1::/64', { gateway: 'fd00:1::1' });
  assert.equal(allocate(addresses, 'a', 0), 'fd00:1::2');
});

test('no address is ever with two owners, and all of them can be used', () => {
  const steps = fc.array(
    fc.record({ take: fc.boolean(), pick: fc.nat(), afterMs: fc.integer({ min: 0, max: 20_000 }) }),
    { maxLength: 200 },
  );
  fc.assert(
    fc.property(steps, (list) => {
      const addresses = space('10.0.1.0/27');
      const owned = new Map<string, string>();
      let nowMs = 0;
      for (const [index, { take, pick, afterMs }] of list.entries()) {
        nowMs += afterMs;
        if (take) {
          const address = allocate(addresses, `t${index}`, nowMs);
          if (address === undefined) continue;
          assert.ok(!owned.has(address), `${address} has an owner`);
          owned.set(address, `t${index}`);
        } else if (owned.size > 0) {
          const [address, owner] = [...owned][pick % owned.size] as [string, string];
          owned.delete(address);
          addresses.release(address, owner, nowMs);
        }
      }
      assert.equal(addresses.used, owned.size);
      while (owned.size < addresses.capacity) {
        const address = allocate(addresses, 'rest', nowMs + HOUR_MS);
        assert.ok(address !== undefined && !owned.has(address));
        owned.set(address, 'rest');
      }
      assert.equal(allocate(addresses, 'more', nowMs + HOUR_MS), undefined);
    }),
  );
});
