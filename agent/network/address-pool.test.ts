import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressPool } from './address-pool.ts';
import { formatIpv4, parseIpv4, parsePrefix } from './ipv4.ts';

function aPool(subnet: string, reservedUntil = 0): { pool: AddressPool; reservations: number[] } {
  const reservations: number[] = [];
  const saveReservation = (until: number): number => reservations.push(until);
  const pool = new AddressPool({ subnet: parsePrefix(subnet), reservedUntil, saveReservation });
  return { pool, reservations };
}

function allocate(pool: AddressPool, count: number): string[] {
  return Array.from({ length: count }, () => formatIpv4(pool.allocate()));
}

test('addresses start behind the gateway and end before the broadcast address', () => {
  const { pool } = aPool('10.0.0.0/29');

  assert.deepEqual(allocate(pool, 5), ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
  assert.throws(() => pool.allocate(), { code: 'resource-exhausted' });
});

test('a released address is given out again only after all others', () => {
  const { pool } = aPool('10.0.0.0/29');
  allocate(pool, 2);

  pool.release(parseIpv4('10.0.0.2')!);

  assert.deepEqual(allocate(pool, 4), ['10.0.0.4', '10.0.0.5', '10.0.0.6', '10.0.0.2']);
});

test('an adopted address is not given out', () => {
  const { pool } = aPool('10.0.0.0/29');

  pool.adopt(parseIpv4('10.0.0.3')!);

  assert.deepEqual(allocate(pool, 2), ['10.0.0.2', '10.0.0.4']);
});

test('a restart goes on where the reservation ended, with one note per 64 addresses', () => {
  const { pool, reservations } = aPool('10.0.0.0/16');
  allocate(pool, 65);
  assert.deepEqual(reservations, [66, 130]);

  const restarted = aPool('10.0.0.0/16', reservations.at(-1));

  assert.deepEqual(allocate(restarted.pool, 1), ['10.0.0.130']);
});

test('a reservation at the end of the subnet starts again at its beginning', () => {
  const { pool, reservations } = aPool('10.0.0.0/29');
  allocate(pool, 1);
  assert.deepEqual(reservations, [7]);

  assert.deepEqual(allocate(aPool('10.0.0.0/29', 7).pool, 1), ['10.0.0.2']);
});
