import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatJoinToken, newJoinSecret, parseJoinToken, secretsEqual } from './join-token.ts';

const digests = fc.uint8Array({ minLength: 32, maxLength: 32 });
const secrets = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => newJoinSecret(() => bytes));

test('every token is read back as what it was made of', () => {
  fc.assert(
    fc.property(digests, secrets, (rootDigest, secret) => {
      const token = formatJoinToken({ rootDigest, secret });
      assert.match(token, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
      assert.deepEqual(parseJoinToken(token), { rootDigest, secret });
    }),
  );
});

test('numbers are in base 36 with zeros in front, as in a token of Swarm', () => {
  const rootDigest = new Uint8Array(32);
  rootDigest[31] = 36;
  const secret = newJoinSecret((size) => new Uint8Array(size).fill(255));
  assert.equal(secret, (2n ** 128n - 1n).toString(36));
  assert.equal(formatJoinToken({ rootDigest, secret }), `SWMTKN-1-${'10'.padStart(50, '0')}-${secret}`);
  const real = createHash('sha256').update('root').digest();
  const [, , digest] = formatJoinToken({ rootDigest: real, secret }).split('-');
  assert.equal(
    digest,
    BigInt(`0x${real.toString('hex')}`)
      .toString(36)
      .padStart(50, '0'),
  );
});

test('a token with any one character changed is another token or none', () => {
  const token = formatJoinToken({ rootDigest: randomBytes(32), secret: newJoinSecret(randomBytes) });
  fc.assert(
    fc.property(fc.nat(token.length - 1), fc.string({ minLength: 1, maxLength: 1 }), (index, character) => {
      fc.pre(token[index] !== character);
      const changed = token.slice(0, index) + character + token.slice(index + 1);
      let read: string | undefined;
      try {
        read = formatJoinToken(parseJoinToken(changed));
      } catch (error) {
        assert.match(String(error), /this is no join token/);
      }
      if (read !== undefined) assert.equal(read, changed);
    }),
  );
});

const digest = '0'.repeat(50);
const secret = 'z'.repeat(25);
for (const [what, text, problem] of [
  ['of another program', `TOKEN-1-${digest}-${secret}`, 'begin with SWMTKN-1-'],
  ['that is empty', '', 'begin with SWMTKN-1-'],
  ['of a FIPS cluster', `SWMTKN-2-1-${digest}-${secret}`, 'FIPS'],
  ['of a later version', `SWMTKN-3-${digest}-${secret}`, 'version is "3"'],
  ['without version', 'SWMTKN', 'version is ""'],
  ['with a short digest', `SWMTKN-1-${digest.slice(1)}-${secret}`, 'digest has 49 characters, not 50'],
  ['with a long secret', `SWMTKN-1-${digest}-${secret}0`, 'secret has 26 characters, not 25'],
  ['without secret', `SWMTKN-1-${digest}`, 'secret has 0 characters'],
  ['in capitals', `SWMTKN-1-${digest}-${secret.toUpperCase()}`, 'secret has other characters'],
  ['with a digest in capitals', `SWMTKN-1-${'A'.repeat(50)}-${secret}`, 'digest has other characters'],
  ['with a digest beyond 256 bits', `SWMTKN-1-${'z'.repeat(50)}-${secret}`, 'larger than a SHA-256'],
  ['with a tail', `SWMTKN-1-${digest}-${secret}-x`, 'something follows'],
] as const)
  test(`a token ${what} is refused, and the message does not repeat it`, () => {
    assert.throws(
      () => parseJoinToken(text),
      (error: Error & { code?: string }) =>
        error.code === 'invalid-argument' &&
        error.message.includes(problem) &&
        !error.message.includes(secret),
    );
  });

test('only a digest and a secret of the right size become a token', () => {
  assert.throws(() => formatJoinToken({ rootDigest: new Uint8Array(31), secret }), /31 bytes, not 32/);
  assert.throws(() => formatJoinToken({ rootDigest: new Uint8Array(32), secret: 'short' }), /5 characters/);
});

test('secrets are equal when all of them is', () => {
  fc.assert(
    fc.property(secrets, secrets, (one, other) => {
      assert.equal(secretsEqual(one, one), true);
      assert.equal(secretsEqual(one, other), one === other);
      assert.equal(secretsEqual(one, one.slice(1)), false);
    }),
  );
});
