// What a service can be part of instead of an overlay: the node's own network, none, a bridge on each node, the network of
// an interface.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { emptySubnet, type ServiceSpec } from '../../core/generated/objects.ts';
import { ask, ECHO_PORT, type Place } from '../support/echo-service.ts';
import { eventually } from '../support/eventually.ts';
import {
  attachmentTo,
  NetworkCluster,
  serverNames,
  serversIn,
  untilAnswered,
} from '../support/network-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { createService, tasksOf } from '../support/services.ts';

describe('networks of other kinds', { skip: whyNoRealNode() ?? false }, () => {
  let world: NetworkCluster;
  let outside: Place;

  before(async () => {
    world = await NetworkCluster.start('tsk', 2);
    outside = { host: world.cluster.lan.addOutsider() };
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  const onEachNode = (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    mode: { replicated: { replicas: 2 } },
    task: { ...spec.task, placement: { ...spec.task.placement, maxReplicasPerNode: 1 } },
  });

  test('host: a task has the interfaces of its node, and its ports', async () => {
    const { tasks } = await world.startEcho('web', { replicas: 2, networks: ['host'], change: onEachNode });
    for (const position of [0, 1]) {
      const id = await world.nodeId(position);
      const [answer] = await ask(outside, { host: world.cluster.lan.addressOf(position) });
      assert.equal(answer?.client, world.cluster.lan.outsiderAddress);
      assert.deepEqual(
        serversIn(answer ? [answer] : []),
        serverNames(tasks.filter(({ nodeId }) => nodeId === id)),
      );
    }
    await world.remove('web');
  });

  test('none: a task has loopback and nothing else', async () => {
    const { tasks } = await world.startEcho('alone', { networks: ['none'] });
    const [task] = tasks;
    assert.ok(task !== undefined);
    const [answer] = await ask({ task }, { host: world.cluster.lan.addressOf(0), port: 2377 });
    assert.match(answer?.error ?? '', /unreachable/);
    await world.remove('alone');
  });

  test('bridge: tasks of one node reach each other by name, those of others are not there', async () => {
    await world.createNetwork('plain', { driver: 'overlay', configOnly: true });
    await world.createNetwork('yard', { driver: 'bridge', configFrom: 'plain' });
    const { tasks } = await world.startEcho('pair', {
      replicas: 4,
      networks: ['yard'],
      change: (spec) => ({
        ...onEachNode(spec),
        mode: { replicated: { replicas: 4 } },
        task: { ...spec.task, placement: { ...spec.task.placement, maxReplicasPerNode: 2 } },
      }),
    });
    for (const task of tasks) {
      const here = tasks.filter(({ nodeId }) => nodeId === task.nodeId);
      const answers = await ask({ task }, { host: 'pair', count: 30 });
      assert.deepEqual(serversIn(answers), serverNames(here));
    }
    await world.remove('pair');
  });

  test('macvlan: a task is a host of the network of an interface, with an address out of its range', async () => {
    const subnets = [
      { ...emptySubnet, subnet: '10.99.0.0/24', ipRange: '10.99.0.128/26', gateway: '10.99.0.250' },
    ];
    await world.createNetwork('eth', {
      driver: 'macvlan',
      configOnly: true,
      options: { parent: 'eth0' },
      subnets,
    });
    await world.createNetwork('street', { driver: 'macvlan', configFrom: 'eth' });
    const { tasks } = await world.startEcho('house', {
      replicas: 2,
      networks: ['street'],
      change: onEachNode,
    });
    const addresses = tasks.map(({ attachments }) => attachments[0]?.addresses[0] ?? '');
    for (const [index, task] of tasks.entries()) {
      assert.match(addresses[index] ?? '', /^10\.99\.0\.1(2[89]|[3-8]\d|9[01])$/);
      await untilAnswered(outside, { host: addresses[index] ?? '' });
      const [answer] = await ask(outside, { host: addresses[index] ?? '', port: ECHO_PORT });
      assert.deepEqual(
        [answer?.client, ...serversIn(answer ? [answer] : [])],
        [world.cluster.lan.outsiderAddress, ...serverNames([task])],
      );
    }
    const [first] = tasks;
    assert.ok(first !== undefined);
    assert.equal((await ask({ task: first }, { host: addresses[1] ?? '' }))[0]?.client, addresses[0]);
    await world.remove('house');
  });

  test('what a node cannot do is the error of its task, with what would help', async () => {
    const subnets = [{ ...emptySubnet, subnet: '10.98.0.0/24' }];
    await world.createNetwork('lane', { driver: 'ipvlan', options: { parent: 'eth0' }, subnets });
    await world.createNetwork('nowhere', {
      driver: 'macvlan',
      options: { parent: 'eth7' },
      subnets: [{ ...emptySubnet, subnet: '10.97.0.0/24' }],
    });
    const errorOf = async (name: string, networkId: string) => {
      const service = await createService(world.manager, name, {
        image: 'localhost/bb:1',
        change: (spec) => ({ ...spec, task: { ...spec.task, networks: [attachmentTo(networkId)] } }),
      });
      const error = await eventually(async () =>
        (await tasksOf(world.manager, service.id))
          .map(({ status }) => status.error)
          .find((text) => text !== ''),
      ).catch(() => 'runs');
      await world.remove(name);
      return error;
    };
    assert.match(await errorOf('ip', 'lane'), /the kernel of this node has no ipvlan|^runs$/);
    assert.match(
      await errorOf('mac', 'nowhere'),
      /network nowhere: this node has no interface "eth7" \(parent\); it has lo, /,
    );
  });

  test('nothing of them is left', async () => {
    for (const node of world.cluster.nodes)
      await eventually(async () => (await node.overlayPins()).length === 0);
  });
});
