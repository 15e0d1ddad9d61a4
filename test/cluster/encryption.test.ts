// An encrypted network between real nodes: what is on the wire, and that nothing is when the tunnel is gone.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Asking, ask } from '../support/echo-service.ts';
import { eventually } from '../support/eventually.ts';
import {
  NetworkCluster,
  type Started,
  serverNames,
  serversIn,
  untilAnswered,
} from '../support/network-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';

const missing = ['/usr/bin/wg', '/usr/bin/wireguard-go', '/dev/net/tun'].filter((file) => !existsSync(file));
const skip = whyNoRealNode() ?? (missing.length > 0 ? `needs ${missing.join(', ')}` : false);

describe('an encrypted network', { skip }, () => {
  let world: NetworkCluster;
  let web: Started;
  let client: Started;

  before(async () => {
    world = await NetworkCluster.start('tse', 2);
    for (const host of world.cluster.lan.hosts) {
      world.cluster.lan.run(host, 'nft', 'add table ip wire');
      world.cluster.lan.run(
        host,
        'nft',
        'add chain ip wire out { type filter hook postrouting priority 300 ; }',
      );
      world.cluster.lan.run(
        host,
        'nft',
        'add rule ip wire out oifname eth0 udp dport { 4789, 4790 } counter comment "clear"',
      );
      world.cluster.lan.run(
        host,
        'nft',
        'add rule ip wire out oifname eth0 udp dport 51820 counter comment "encrypted"',
      );
    }
    await world.createNetwork('secret', { encrypted: true });
    web = await world.startEcho('web', { replicas: 4, networks: ['secret'] });
    client = await world.startEcho('client', { replicas: 2, networks: ['secret'] });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  /** Packets that left a host for others since the beginning. */
  const packets = (host: string, what: 'clear' | 'encrypted'): number => {
    const rules = world.cluster.lan.output(host, 'nft', 'list table ip wire');
    return Number(new RegExp(`counter packets (\\d+) bytes \\d+ comment "${what}"`).exec(rules)?.[1]);
  };

  test('carries TCP and UDP between all tasks, and nothing of it is on the wire in clear', async () => {
    for (const how of ['tcp', 'udp'] as const)
      for (const task of client.tasks) {
        await untilAnswered({ task }, { host: 'web', how });
        const answers = await ask({ task }, { host: 'web', how, count: 60 });
        assert.deepEqual(serversIn(answers), serverNames(web.tasks));
      }
    for (const host of world.cluster.lan.hosts) {
      assert.equal(packets(host, 'clear'), 0);
      assert.ok(packets(host, 'encrypted') > 50);
    }
  });

  test('goes on while a daemon is killed and comes back', async () => {
    const id = await world.nodeId(1);
    const task = client.tasks.find(({ nodeId }) => nodeId === id);
    assert.ok(task !== undefined);
    const { service } = await world.manager.control.getService({ service: 'web' });
    await using asking = new Asking({ task }, { host: service.virtualAddresses[0]?.address ?? '' });
    await eventually(() => asking.answered > 20);
    await world.cluster.node(1).killDaemon();
    await world.cluster.node(1).startDaemon();
    await world.cluster.until(1, ({ status }) => status.state === 'ready');
    const before = asking.answered;
    await eventually(() => asking.answered > before + 50);
    assert.deepEqual(asking.errors, []);
  });

  test('reaches a node with another key, as it has after a start of the machine', async () => {
    const id = await world.nodeId(1);
    const task = client.tasks.find(({ nodeId }) => nodeId !== id);
    const far = web.tasks.find(({ nodeId }) => nodeId === id);
    assert.ok(task !== undefined && far !== undefined);
    const keyOf = async () => (await world.cluster.find(1)).description.tunnelKey;
    const before = await keyOf();
    await world.cluster.node(1).stopDaemon();
    await rm(path.join(world.cluster.node(1).runDir, 'tunnel.key'));
    await world.cluster.node(1).startDaemon();
    await eventually(async () => (await keyOf()) !== before);
    await untilAnswered({ task }, { host: far.attachments[0]?.addresses[0] ?? '' });
  });

  test('sends nothing when the tunnel is gone, and works again when it has been made anew', async () => {
    const [host = ''] = world.cluster.lan.hosts;
    const id = await world.nodeId(0);
    const [task] = client.tasks.filter(({ nodeId }) => nodeId === id);
    const far = web.tasks.find(({ nodeId }) => nodeId !== id);
    assert.ok(task !== undefined && far !== undefined);
    const address = far.attachments[0]?.addresses[0] ?? '';
    const link = /(tswg-\w+)/.exec(world.cluster.lan.output(host, 'ip', '-br', 'link'))?.[1] ?? '';
    world.cluster.lan.run(host, 'ip', 'link', 'delete', link);
    // It may be back before this is answered; whatever was sent until then was not sent in clear.
    await ask({ task }, { host: address });
    assert.equal(packets(host, 'clear'), 0);
    await world.manager.cli('net', 'audit', '--repair');
    await untilAnswered({ task }, { host: address });
    assert.equal(packets(host, 'clear'), 0);
  });

  test('leaves nothing behind', async () => {
    await world.remove('web', 'client');
    for (const node of world.cluster.nodes)
      await eventually(async () => (await node.overlayPins()).length === 0);
  });
});
