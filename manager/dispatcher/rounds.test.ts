import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { Rounds } from './rounds.ts';

function start() {
  const clock = new FakeClock();
  const turns: number[] = [];
  const rounds = new Rounds<number>(clock, (item) => turns.push(item));
  return { clock, turns, rounds };
}

test('few have their turns at once, each once however often it was asked for', () => {
  const { clock, turns, rounds } = start();
  for (const item of [1, 2, 1, 1]) rounds.add(item);
  assert.deepEqual(turns, []);
  clock.advance(0);
  assert.deepEqual(turns, [1, 2]);
  rounds.add(1);
  clock.advance(0);
  assert.deepEqual(turns, [1, 2, 1]);
});

test('many take turns in the order in which they came, and who comes back meanwhile is last', () => {
  const { clock, turns, rounds } = start();
  for (let item = 0; item < 50; item++) rounds.add(item);
  clock.advance(0);
  assert.equal(turns.length, 20);
  rounds.add(0);
  rounds.add(49);
  clock.advance(19);
  assert.equal(turns.length, 20);
  clock.advance(1);
  assert.equal(turns.length, 40);
  clock.advance(20);
  assert.deepEqual(turns, [...Array.from({ length: 50 }, (_, item) => item), 0]);
  clock.advance(1_000);
  assert.equal(turns.length, 51);
});

test('after many have waited, one that comes alone waits for the end of the round', () => {
  const { clock, turns, rounds } = start();
  for (let item = 0; item < 21; item++) rounds.add(item);
  clock.advance(20);
  assert.equal(turns.length, 21);
  rounds.add(99);
  clock.advance(0);
  assert.equal(turns.length, 22);
});
