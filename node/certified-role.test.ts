// What a node does with its certificate and with the news of its cluster.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { FakeClock } from '../core/clock.ts';
import { type ClusterNews, emptyClusterNews } from '../proto/generated/dispatcher.ts';
import { newIdentities } from '../test/support/test-authority.ts';
import { CertifiedRole, type CertifiedRoleOptions } from './certified-role.ts';

const nobody = () => assert.fail('nobody is to be asked');

/** A manager whose lock changes when the test says so; `written`: the lock of the node's own key, each time it was written. */
async function aManager() {
  const identity = defined((await newIdentities(['own'])).get('own'), 'an identity');
  const written: string[] = [];
  let lock = '';
  let unlocked: (() => void) | undefined;
  const options: CertifiedRoleOptions = {
    clock: new FakeClock(Date.now()),
    random: () => 0.5,
    tool: { createKeyAndRequest: nobody },
    managers: [],
    ownAddress: () => '',
    connectToOwnManager: nobody,
    connectTo: nobody,
    startManager: () => ({ stop: async () => {} }),
    forgetManager: () => {},
    keep: () => void written.push(lock),
    remember: () => {},
    changeLock: async (unlockKey) => {
      if (unlockKey === lock) return false;
      await new Promise<void>((resolve) => {
        unlocked = resolve;
      });
      lock = unlockKey;
      return true;
    },
    onChange: () => {},
    onSuccess: () => {},
    onFailure: (subject, error) => assert.fail(`${subject}: ${error}`),
  };
  const role = new CertifiedRole(options, new AbortController().signal);
  role.start(identity);
  const news: ClusterNews = { ...emptyClusterNews, role: 'manager', roots: identity.roots };
  /** Resolves when the lock is to change; what it resolves with changes it. */
  const changing = async () => {
    while (unlocked === undefined) await Promise.resolve();
    return unlocked;
  };
  return { role, news, written, changing };
}

test("a manager's own key is locked anew when its log is", async () => {
  const { role, news, written, changing } = await aManager();
  role.follow({ ...news, unlockKey: 'key' });
  const change = await changing();
  change();
  await role.idle();
  assert.deepEqual(written, ['key']);
});

test('other news that come before the log is locked anew do not keep it from that', async () => {
  const { role, news, written, changing } = await aManager();
  role.follow({ ...news, unlockKey: 'key' });
  const change = await changing();
  role.follow({ ...news, unlockKey: 'key', address: '10.0.0.1:2377' });
  change();
  await role.idle();
  assert.deepEqual(written, ['key']);
});
