import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededChance } from '../../test/support/faults.ts';
import { RowIndex } from './row-index.ts';

test('an index leads from ids to rows as a map does, whatever is added and deleted (seeded)', () => {
  for (const seed of [1, 2, 3]) {
    const chance = seededChance(seed);
    const ids: (string | undefined)[] = [];
    const index = new RowIndex((row) => ids[row]);
    const rows = new Map<string, number>();
    for (let step = 0; step < 30_000; step++) {
      const id = `task-${Math.floor(chance() * 6_000)}`;
      const row = rows.get(id);
      assert.equal(index.get(id), row, `seed ${seed}, step ${step}, ${id}`);
      if (row === undefined) {
        ids.push(id);
        index.add(id, ids.length - 1);
        rows.set(id, ids.length - 1);
      } else if (chance() < 0.7) {
        index.delete(id);
        ids[row] = undefined;
        rows.delete(id);
        assert.equal(index.get(id), undefined);
      }
      assert.equal(index.size, rows.size);
    }
    for (const [id, row] of rows) assert.equal(index.get(id), row);
  }
});

test('ids that are short, empty or alike in their last characters are told apart', () => {
  const ids = ['', 'a', 'b', 'aa', 'one-same-ending', 'two-same-ending'];
  const index = new RowIndex((row) => ids[row]);
  for (const [row, id] of ids.entries()) index.add(id, row);

  assert.deepEqual(
    ids.map((id) => index.get(id)),
    [0, 1, 2, 3, 4, 5],
  );
  assert.equal(index.get('no-same-ending'), undefined);
});

test('what comes and goes for ever takes no more room than what is there', () => {
  const ids: (string | undefined)[] = [];
  const index = new RowIndex((row) => ids[row]);
  const comeAndGo = (from: number, to: number) => {
    for (let round = from; round < to; round++) {
      ids[0] = `id-${round}`;
      index.add(`id-${round}`, 0);
      index.delete(`id-${round}`);
    }
  };
  comeAndGo(0, 10_000);
  const before = index.slots;
  comeAndGo(10_000, 100_000);

  assert.equal(index.size, 0);
  assert.equal(index.slots, before);
});
