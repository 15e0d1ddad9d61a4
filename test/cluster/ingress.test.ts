// Services published on every node, asked from outside the cluster: three hosts with real containers, and one that is no node.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { emptyPortConfig, type PortConfig } from '../../core/generated/objects.ts';
import { Asking, ask, ECHO_PORT, type Place } from '../support/echo-service.ts';
import { eventually } from '../support/eventually.ts';
import {
  NetworkCluster,
  type Started,
  serverNames,
  serversIn,
  untilAnswered,
} from '../support/network-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { untilRunning } from '../support/services.ts';

const PORT = 8080;
/** Enough to hear of three tasks. */
const MANY = 40;

function publish(publishedPort: number, change: Partial<PortConfig> = {}): PortConfig[] {
  return (['tcp', 'udp'] as const).map((protocol) => ({
    ...emptyPortConfig,
    protocol,
    publishedPort,
    targetPort: ECHO_PORT,
    ...change,
  }));
}

describe('services published by the routing mesh', { skip: whyNoRealNode() ?? false }, () => {
  let world: NetworkCluster;
  let web: Started;
  let outside: Place;
  const addressOf = (position: number) => world.cluster.lan.addressOf(position);

  before(async () => {
    world = await NetworkCluster.start('tsi', 3);
    outside = { host: world.cluster.lan.addOutsider() };
    web = await world.startEcho('web', { replicas: 3, ports: publish(PORT) });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  for (const how of ['tcp', 'udp'] as const)
    for (const position of [0, 1, 2])
      test(`host ${position} takes ${how} for every task, which sees the address of the client`, async () => {
        const answers = await ask(outside, { how, host: addressOf(position), port: PORT, count: MANY });
        assert.deepEqual(serversIn(answers), serverNames(web.tasks));
        assert.deepEqual(
          new Set(answers.map(({ client }) => client)),
          new Set([world.cluster.lan.outsiderAddress]),
        );
      });

  test('a node reaches the service by its own address and by localhost', async () => {
    for (const address of ['127.0.0.1', addressOf(1)])
      for (const how of ['tcp', 'udp'] as const) {
        const answers = await ask(
          { host: world.cluster.lan.hosts[1] as string },
          { how, host: address, port: PORT, count: MANY },
        );
        assert.deepEqual(serversIn(answers), serverNames(web.tasks), `${how} ${address}`);
      }
  });

  test('a node reaches the service by ::1 as well, although the network has IPv4 only', async () => {
    const place = { host: world.cluster.lan.hosts[1] as string };
    for (const how of ['tcp', 'udp'] as const) {
      const answers = await ask(place, { how, host: '::1', port: PORT, count: MANY });
      assert.deepEqual(serversIn(answers), serverNames(web.tasks), how);
    }
  });

  test('a container of the service has a way out', async () => {
    const [task] = web.tasks;
    assert.ok(task !== undefined);
    const [answer] = await ask({ task }, { host: addressOf(2), port: PORT });
    assert.equal(answer?.error, '');
  });

  test('a published port becomes another one, with the tasks that there are', async () => {
    const { tasks } = await world.startEcho('moves', { ports: publish(8083) });
    await untilAnswered(outside, { host: addressOf(2), port: 8083 });
    await world.update('moves', (spec) => ({
      ...spec,
      endpoint: { ...spec.endpoint, ports: publish(8084), affinity: 'client-address' },
    }));
    await untilAnswered(outside, { host: addressOf(2), port: 8084 });
    await untilAnswered(outside, { host: addressOf(2), port: 8083 }, ({ error }) => /refused/.test(error));
    const answers = await ask(outside, { host: addressOf(2), port: 8084, count: 5 });
    assert.deepEqual(serversIn(answers), serverNames(tasks));
    await world.remove('moves');
  });

  test('only the local tasks answer where that is asked for', async () => {
    const local = await world.startEcho('local', { replicas: 3, ports: publish(8081, { locality: 'only' }) });
    for (const position of [0, 1, 2]) {
      const id = await world.nodeId(position);
      const here = local.tasks.filter(({ nodeId }) => nodeId === id);
      await untilAnswered(outside, { host: addressOf(position), port: 8081 });
      const answers = await ask(outside, { host: addressOf(position), port: 8081, count: 10 });
      assert.deepEqual(serversIn(answers), serverNames(here));
    }
    await world.update('local', (spec) => ({ ...spec, mode: { replicated: { replicas: 1 } } }));
    const [left] = await untilRunning(world.manager, local.service.id, 1);
    const position = (await Promise.all([0, 1, 2].map((at) => world.nodeId(at)))).findIndex(
      (id) => id !== left?.nodeId,
    );
    await untilAnswered(outside, { host: addressOf(position), port: 8081 }, ({ error }) =>
      /refused/.test(error),
    );
    await world.remove('local');
  });

  test('a port that a process of one host has is the problem of that node, and works on the others', async () => {
    await using taken = await world.cluster.lan.listen(2, 8082);
    // The task is on the very node that cannot have the port: the others reach it there.
    const other = await world.startEcho('other', {
      ports: publish(8082),
      change: (spec) => ({
        ...spec,
        task: {
          ...spec.task,
          placement: {
            ...spec.task.placement,
            constraints: [`node.hostname==${world.cluster.lan.hosts[2]}`],
          },
        },
      }),
    });
    const answers = await ask(outside, { host: addressOf(0), port: 8082, count: 3 });
    assert.deepEqual(serversIn(answers), serverNames(other.tasks));
    await eventually(async () => /8082/.test((await world.cluster.node(2).node.info({})).error));
    await taken[Symbol.asyncDispose]();
    await untilAnswered(outside, { host: addressOf(2), port: 8082 });
    await eventually(async () => (await world.cluster.node(2).node.info({})).error === '');
    await world.remove('other');
  });

  test('a port published in host mode is that of the one task', async () => {
    await world.createNetwork('front');
    const host = await world.startEcho('host', {
      networks: ['front'],
      ports: publish(8083, { publishMode: 'host' }),
    });
    const [task] = host.tasks;
    const ids = await Promise.all([0, 1, 2].map((at) => world.nodeId(at)));
    const position = ids.indexOf(task?.nodeId ?? '');
    for (const how of ['tcp', 'udp'] as const) {
      const [answer] = await ask(outside, { how, host: addressOf(position), port: 8083 });
      assert.equal(answer?.client, world.cluster.lan.outsiderAddress);
    }
    assert.match(
      (await ask(outside, { host: addressOf((position + 1) % 3), port: 8083 }))[0]?.error ?? '',
      /refused/,
    );
    await world.remove('host');
  });

  test('ports without a number get one, which the service shows', async () => {
    const free = await world.startEcho('free', { ports: publish(0) });
    const { service } = await world.manager.control.getService({ service: free.service.id });
    const [port] = service.ports;
    assert.ok((port?.publishedPort ?? 0) >= 30_000);
    await untilAnswered(outside, { host: addressOf(1), port: port?.publishedPort ?? 0 });
    await world.remove('free');
  });

  test('a killed daemon keeps the port, and what it published goes on', async () => {
    await using asking = new Asking(outside, { host: addressOf(1), port: PORT });
    await eventually(() => asking.answered > 10);
    await world.cluster.node(1).killDaemon();
    const before = asking.answered;
    await eventually(() => asking.answered > before + 50);
    await world.cluster.node(1).startDaemon();
    const after = asking.answered;
    await eventually(() => asking.answered > after + 50);
    assert.deepEqual(asking.errors, []);
  });

  test('when the last published port goes, nothing of the mesh is left on any node', async () => {
    await world.remove('web');
    for (const node of world.cluster.nodes)
      await eventually(async () => (await node.overlayPins()).length === 0);
    assert.match((await ask(outside, { host: addressOf(0), port: PORT }))[0]?.error ?? '', /refused/);
  });
});

describe('services published by a routing mesh with IPv6', { skip: whyNoRealNode() ?? false }, () => {
  let world: NetworkCluster;
  let web: Started;
  let outside: Place;

  before(async () => {
    world = await NetworkCluster.start('tsj', 2);
    outside = { host: world.cluster.lan.addOutsider() };
    world.cluster.lan.addIpv6();
    await world.manager.control.removeNetwork({ network: 'ingress' });
    await world.createNetwork('ingress', { ingress: true, ipv6: true });
    web = await world.startEcho('web', { replicas: 2, ports: publish(PORT) });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  for (const how of ['tcp', 'udp'] as const)
    for (const position of [0, 1]) {
      test(`host ${position} takes ${how} by both families for every task, which sees its client`, async () => {
        const { lan } = world.cluster;
        for (const [host, client] of [
          [lan.addressOf(position), lan.outsiderAddress],
          [lan.ipv6AddressOf(position), lan.outsiderIpv6Address],
        ] as const) {
          const answers = await ask(outside, { how, host, port: PORT, count: MANY });
          assert.deepEqual(serversIn(answers), serverNames(web.tasks));
          assert.deepEqual(new Set(answers.map((answer) => answer.client)), new Set([client]));
        }
      });

      test(`a task on host ${position} reaches ${how} ports of every host by IPv6`, async () => {
        const id = await world.nodeId(position);
        const task = web.tasks.find(({ nodeId }) => nodeId === id);
        assert.ok(task !== undefined);
        for (const at of [0, 1]) {
          const host = world.cluster.lan.ipv6AddressOf(at);
          const answers = await ask({ task }, { how, host, port: PORT, count: MANY });
          assert.deepEqual(serversIn(answers), serverNames(web.tasks));
        }
      });
    }

  test('a port published in host mode is reached by both families, and the task sees its client', async () => {
    const { lan } = world.cluster;
    const { tasks } = await world.startEcho('host', { ports: publish(8083, { publishMode: 'host' }) });
    const position = (await world.nodeId(0)) === tasks[0]?.nodeId ? 0 : 1;
    for (const how of ['tcp', 'udp'] as const)
      for (const [host, client] of [
        [lan.addressOf(position), lan.outsiderAddress],
        [lan.ipv6AddressOf(position), lan.outsiderIpv6Address],
      ] as const) {
        const [answer] = await ask(outside, { how, host, port: 8083 });
        assert.equal(answer?.client, client, `${how} ${host} ${answer?.error}`);
        for (const own of [host, '127.0.0.1', '::1']) {
          const place = { host: lan.hosts[position] as string };
          assert.equal((await ask(place, { how, host: own, port: 8083 }))[0]?.error, '', `${how} ${own}`);
        }
      }
    await world.remove('host');
  });
});
