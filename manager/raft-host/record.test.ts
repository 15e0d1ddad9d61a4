import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeRecord, scanRecords } from './record.ts';

const payloads = fc.array(fc.uint8Array({ maxLength: 200 }), { minLength: 1, maxLength: 20 });

function logOf(all: readonly Uint8Array[]): Buffer {
  return Buffer.concat(all.map((payload, index) => encodeRecord(index + 1, payload)));
}

test('records come back as they were written', () => {
  fc.assert(
    fc.property(payloads, (all) => {
      const { records, validBytes, corruptAt } = scanRecords(logOf(all));
      assert.deepEqual(
        records.map(({ index }) => index),
        all.map((_, index) => index + 1),
      );
      assert.deepEqual(
        records.map(({ payload }) => [...payload]),
        all.map((payload) => [...payload]),
      );
      assert.equal(validBytes, logOf(all).length);
      assert.equal(corruptAt, undefined);
    }),
  );
});

test('a log cut anywhere keeps every whole record and is no corruption', () => {
  fc.assert(
    fc.property(payloads, fc.nat(), (all, where) => {
      const log = logOf(all);
      const cut = log.subarray(0, where % log.length);
      const { records, validBytes, corruptAt } = scanRecords(cut);
      assert.equal(corruptAt, undefined);
      assert.ok(validBytes <= cut.length);
      assert.ok(records.length < all.length);
      assert.deepEqual(
        records.map(({ payload }) => [...payload]),
        all.slice(0, records.length).map((p) => [...p]),
      );
    }),
  );
});

test('a flipped bit before a whole record is told from a torn end', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 8, maxLength: 60 }), { minLength: 2, maxLength: 8 }),
      fc.nat(),
      (all, where) => {
        const log = logOf(all);
        const last = encodeRecord(all.length, all.at(-1) as Uint8Array).length;
        const victim = encodeRecord(1, all[0] as Uint8Array);
        // Any byte of the first record that carries meaning (its padding does not).
        const offset = where % (20 + (all[0] as Uint8Array).length);
        log[offset] = (log[offset] as number) ^ 0x40;
        const { records, corruptAt } = scanRecords(log);
        assert.equal(records.length, 0);
        assert.equal(corruptAt, 0);
        assert.ok(log.length >= victim.length + last);
      },
    ),
  );
});
