import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyJoinRequest } from '../proto/generated/node.ts';
import { FakeEngine } from '../test/support/fake-engine.ts';
import type { Daemon } from './daemon.ts';
import { nodeHandlers } from './node-api.ts';

test('a word that is no token is refused before anything is looked at', async () => {
  let joins = 0;
  const daemon = { engine: new FakeEngine(), join: async () => void joins++ } as unknown as Daemon;
  const { join } = nodeHandlers(daemon);
  const request = { ...emptyJoinRequest, token: 'SWMTKN-1-abc', managers: ['10.0.0.1:2377'] };

  await assert.rejects(async () => join(request, undefined as never), {
    code: 'invalid-argument',
    message: /its digest has 3 characters/,
  });
  assert.equal(joins, 0);
});
