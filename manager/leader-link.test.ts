// The connection to the leader, real ones with real certificates.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { systemClock } from '../node/system-clock.ts';
import { ControlService } from '../proto/generated/control.ts';
import { createClient, openTlsChannel } from '../rpc/client.ts';
import { type Handlers, RpcServer } from '../rpc/server.ts';
import { clientCredentials, type TlsIdentity } from '../rpc/tls.ts';
import { newIdentities, TEST_CLUSTER } from '../test/support/test-authority.ts';
import { IdentityHolder } from './identity-holder.ts';
import { LeaderChannel } from './leader-link.ts';
import type { ReplicatedLog } from './store/replicated-log.ts';

test('a manager that loses its connection to the leader comes back with the certificate that it has then', async (t) => {
  const identityOf = async (root: Promise<Map<string, TlsIdentity>>, nodeId: string) =>
    defined((await root).get(nodeId), nodeId);
  const [before, after] = [newIdentities(['leader', 'follower']), newIdentities(['leader', 'follower'])];
  const leader = new RpcServer();
  const callers: string[] = [];
  leader.add(ControlService, {
    listNodes: async (_, { caller }) => {
      callers.push(`${caller.role} ${caller.nodeId}`);
      return { nodes: [] };
    },
  } as Partial<Handlers<typeof ControlService>> as Handlers<typeof ControlService>);
  const port = await leader.listenTls(
    { host: '127.0.0.1', port: 0 },
    { identity: await identityOf(before, 'leader'), clusterId: TEST_CLUSTER },
  );
  const identity = new IdentityHolder(await identityOf(before, 'follower'));
  const link = new LeaderChannel({
    log: {
      leadership: { isLeader: false, leaderAddress: `127.0.0.1:${port}` },
    } as Partial<ReplicatedLog> as ReplicatedLog,
    clock: systemClock,
    connect: (address) =>
      openTlsChannel(address, clientCredentials(identity.current, { clusterId: TEST_CLUSTER })),
    identity,
  });
  t.after(() => {
    link.close();
    leader.stop();
  });
  const ask = async () => {
    const channel = defined(await link.find(t.signal), 'another manager that leads');
    await createClient(ControlService, channel).listNodes({}, { timeoutMs: 10_000 });
  };
  await ask();

  leader.setIdentity(await identityOf(after, 'leader'));
  identity.set(await identityOf(after, 'follower'));
  leader.disconnect('follower');

  await ask();
  assert.deepEqual(callers, ['manager follower', 'manager follower']);
});
