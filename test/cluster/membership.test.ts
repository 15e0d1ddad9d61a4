// Five whole nodes on hosts of their own: joining, roles, certificates, the root, the lock, and what dies in between.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../core/errors.ts';
import type { Node, NodeRole } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { emptyJoinRequest } from '../../proto/generated/node.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { type RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, tasksOf, untilRunning } from '../support/services.ts';

const image = 'localhost/bb:1';

const isManager = ({ role, managerStatus }: Node) =>
  role === 'manager' && managerStatus?.voter === true && managerStatus.reachable;
const isWorker = ({ role, description }: Node) => role === 'worker' && description.trust.role === 'worker';

describe('a cluster of five nodes', { skip: whyNoRealNode() ?? false }, () => {
  let cluster: RealCluster;
  let serviceId: string;

  before(async () => {
    cluster = await RealCluster.start('tsm', 5);
    await cluster.init();
    const { archive } = await buildDemoImage({ name: image });
    for (const node of cluster.nodes) await node.importImage(archive);
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const leaderOf = async (asked: number) => {
    const { nodes } = await cluster.node(asked).control.listNodes({});
    const leader = nodes.find(({ managerStatus }) => managerStatus?.leader);
    const position = cluster.lan.hosts.indexOf(leader?.description.hostname ?? '');
    assert.ok(position >= 0, 'somebody leads');
    return position;
  };
  const setRole = async (position: number, desiredRole: NodeRole, asked: number) => {
    const node = await cluster.find(position, asked);
    await cluster.node(asked).control.updateNode({
      nodeId: node.id,
      version: node.meta.version,
      spec: { ...node.spec, desiredRole },
      address: '',
    });
  };
  const service = async (asked: number) => tasksOf(cluster.node(asked), serviceId);

  test('grows by tokens: managers count, workers work, and any manager answers for all', async () => {
    await cluster.join(1, 'manager');
    await cluster.join(2, 'manager', 1);
    await cluster.join(3, 'worker', 2);
    await cluster.join(4, 'worker', 1);

    for (const position of [0, 1, 2]) await cluster.until(position, isManager, 2);
    for (const position of [3, 4]) await cluster.until(position, isWorker, 1);
    serviceId = (await createService(cluster.node(1), 'web', { image, replicas: 10 })).id;
    const tasks = await untilRunning(cluster.node(2), serviceId, 10);
    assert.equal(new Set(tasks.map(({ nodeId }) => nodeId)).size, 5, 'spread over all nodes');
  });

  test('refuses a second membership, a foreign token and an address where nobody is', async () => {
    const join = (token: string, managers: readonly string[]) =>
      cluster.node(4).node.join({ ...emptyJoinRequest, token, managers });
    const { worker } = await cluster.node(0).control.getJoinTokens({});
    await assert.rejects(join(worker, ['10.99.0.1:2377']), /already part of a cluster/);
    const outside = await RealCluster.start('tsx', 1);
    try {
      const joinOutside = (token: string, managers: readonly string[]) =>
        outside.node(0).node.join({ ...emptyJoinRequest, token, managers });
      await assert.rejects(joinOutside(`${worker}x`, ['10.99.0.1:2377']), /secret has 26 characters/);
      await assert.rejects(joinOutside(worker, ['10.99.0.1:2379']), /10\.99\.0\.1:2379 cannot be reached/);
      assert.equal((await outside.node(0).node.info({})).state, 'inactive');
    } finally {
      await outside[Symbol.asyncDispose]();
    }
  });

  test('promotes a worker and demotes it again, and its containers do not notice', async () => {
    const before = (await service(0)).map(({ id }) => id).sort();

    await setRole(3, 'manager', 2);
    await cluster.until(3, isManager, 0);
    assert.ok((await cluster.node(3).control.listNodes({})).nodes.length === 5, 'it answers operators now');
    await setRole(3, 'worker', 0);
    await cluster.until(3, isWorker, 0);

    await eventually(async () => !(await cluster.node(3).node.info({})).manager);
    assert.deepEqual((await service(0)).map(({ id }) => id).sort(), before, 'the same tasks run');
  });

  test('a demotion that is taken back at once leaves a manager that counts', async () => {
    for (let round = 0; round < 2; round++) {
      await setRole(2, 'worker', 0);
      await cluster.until(2, ({ managerStatus }) => managerStatus?.voter !== true, 0);
      await setRole(2, 'manager', 0);
      await cluster.until(2, isManager, 0);
    }
  });

  test('demotes its leader: leadership goes on first, and no call fails', async () => {
    const leader = await leaderOf(0);
    const other = leader === 0 ? 1 : 0;
    const calls = countCalls(cluster.node(other));

    await setRole(leader, 'worker', other);
    await cluster.until(leader, isWorker, other);
    await setRole(leader, 'manager', other);
    await cluster.until(leader, isManager, other);

    assert.deepEqual(await calls.stop(), [], 'calls that failed');
  });

  test('goes on when the daemon of its leader is killed, and takes it back', async () => {
    const leader = await leaderOf(0);
    const other = [0, 1, 2].find((position) => position !== leader) ?? 0;

    await cluster.node(leader).killDaemon();
    await cluster.until(leader, ({ managerStatus }) => managerStatus?.reachable === false, other);
    await cluster.node(leader).startDaemon();
    await cluster.until(leader, isManager, other);
    await untilRunning(cluster.node(other), serviceId, 10);
  });

  test('refuses to lose its majority by its own command, with the numbers', async () => {
    const leader = await leaderOf(0);
    const [gone = 0, spared = 0] = [0, 1, 2].filter((position) => position !== leader);
    await cluster.node(gone).killDaemon();
    // A leader that is new calls everybody unreachable for a moment.
    await cluster.until(gone, ({ status }) => status.state === 'down', leader);

    await assert.rejects(
      setRole(spared, 'worker', leader),
      /it would leave 1 of 2 managers reachable, 2 are needed/,
    );
    await assert.rejects(cluster.node(spared).node.leave({ force: false }), /1 of 2 managers reachable/);

    await cluster.node(gone).startDaemon();
    await cluster.until(gone, isManager, leader);
  });

  test('rotates its root while calls and tasks go on, and new tokens name the new root', async () => {
    const before = await cluster.node(0).control.getJoinTokens({});
    const { certificate } = await cluster.node(0).control.getAuthority({});
    const calls = countCalls(cluster.node(1));

    await cluster.node(2).control.rotateAuthority({
      certificate: '',
      key: '',
      externalCas: [],
      certificateLifeMs: 0,
    });
    const after = await eventually(async () => {
      const authority = await cluster.node(0).control.getAuthority({});
      if (authority.rotation !== undefined)
        throw new Error(`waiting for ${authority.rotation.waitingFor.join(', ')}`);
      return authority;
    }, 30_000);

    assert.deepEqual(await calls.stop(), [], 'calls that failed');
    assert.notEqual(after.certificate, certificate);
    const tokens = await cluster.node(0).control.getJoinTokens({});
    assert.notEqual(tokens.worker.split('-')[2], before.worker.split('-')[2]);
    await untilRunning(cluster.node(0), serviceId, 10);
    // A manager that restarts believes only the new root.
    await cluster.node(1).stopDaemon();
    await cluster.node(1).startDaemon();
    await cluster.until(1, isManager, 0);
  });

  test('a manager that got another address is moved by a command', async () => {
    const leader = await leaderOf(0);
    const [moving = 0, asked = 0] = [0, 1, 2].filter((position) => position !== leader);
    const address = `${cluster.lan.readdress(moving, 50)}:2377`;
    await cluster.until(moving, ({ managerStatus }) => managerStatus?.reachable === false, asked);

    // Its agent tells its new address meanwhile, which is a change of the node as well.
    await eventually(async () => {
      const { id, meta, spec } = await cluster.find(moving, asked);
      return cluster.node(asked).control.updateNode({ nodeId: id, version: meta.version, spec, address });
    });
    const moved = await cluster.until(moving, isManager, asked);
    assert.equal(moved.managerStatus?.address, address);
    await eventually(async () => (await cluster.node(moving).node.info({})).advertiseAddress === address);
    // Its connections were lost, and the certificates that they began with are of a root that is gone.
    await eventually(() => cluster.find(asked, moving));
    // It comes back under the address that it learned.
    await cluster.node(moving).stopDaemon();
    await cluster.node(moving).startDaemon();
    await cluster.until(moving, isManager, asked);
  });

  test('a worker that leaves is down, its tasks run elsewhere, and it can be removed', async () => {
    await cluster.node(4).node.leave({ force: false });
    const gone = await cluster.until(4, ({ status }) => status.state === 'down', 0);
    await assert.rejects(
      cluster.node(0).control.removeNode({ node: cluster.lan.hosts[0] ?? '', force: true }),
      /is a manager/,
    );
    await cluster.node(0).control.removeNode({ node: gone.id, force: false });
    const tasks = await untilRunning(cluster.node(0), serviceId, 10);
    assert.ok(tasks.every(({ nodeId }) => nodeId !== gone.id));
    assert.equal((await cluster.node(4).node.info({})).containersRunning, 0);
    await cluster.join(4, 'worker');
    await cluster.until(4, isWorker, 0);
  });

  test('a node that was removed by force gets no word in any more', async () => {
    const node = await cluster.find(4, 0);
    await cluster.node(0).control.removeNode({ node: node.id, force: true });
    await eventually(async () => (await cluster.node(4).daemonLog()).includes('is not part of this cluster'));
    const { nodes } = await cluster.node(0).control.listNodes({});
    assert.equal(nodes.length, 4);
    await cluster.node(4).node.leave({ force: true });
    assert.equal((await cluster.node(4).node.info({})).containersRunning, 0);
    await cluster.join(4, 'worker');
    await cluster.until(4, isWorker, 0);
  });

  test('gives up a manager that is dead and a node that has departed, when told to', async () => {
    await setRole(3, 'manager', 0);
    await cluster.until(3, isManager, 0);
    const { cluster: settings } = await cluster.node(0).control.getCluster({});
    const spec = { ...settings.spec, deadManagerAfterMs: 500, departedNodeAfterMs: 500 };
    await cluster.node(0).control.updateCluster({
      version: settings.meta.version,
      spec,
      rotateWorkerToken: false,
      rotateManagerToken: false,
      rotateUnlockKey: false,
    });

    await cluster.node(3).killDaemon();
    await eventually(async () => (await cluster.node(0).control.listNodes({})).nodes.length === 4, 30_000);
    // With three managers left the next one that dies is kept: removing it would leave two, of which none may fail.
    const [gone = 0, asked = 0] = [0, 1, 2].slice(1);
    await cluster.node(gone).killDaemon();
    await cluster.until(gone, ({ status }) => status.state === 'down', asked);
    const { nodes } = await cluster.node(asked).control.listNodes({});
    assert.equal(nodes.filter(({ managerStatus }) => managerStatus?.voter).length, 3);
    await cluster.node(gone).startDaemon();
    await cluster.until(gone, isManager, asked);
  });
});

/** Lists nodes and changes the cluster again and again until stopped; what failed comes back. */
function countCalls(node: RealNode) {
  const failures: string[] = [];
  let isStopped = false;
  const run = async () => {
    while (!isStopped) {
      await node.control
        .listNodes({}, { timeoutMs: 10_000 })
        .catch((error) => failures.push(messageOf(error)));
      await delay(5);
    }
  };
  const running = run();
  return {
    stop: async () => {
      isStopped = true;
      await running;
      return failures;
    },
  };
}
