// A node whose cluster lies in an operator's etcd: the daemon with --store, containers, and the daemon's ends.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { missingForEtcd, RealEtcd } from '../support/real-etcd.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { freePort } from '../support/real-registry.ts';
import { createService, untilRunning } from '../support/services.ts';

const skip = whyNoRealNode() ?? missingForEtcd;

describe('a node on etcd', { skip }, () => {
  let etcd: RealEtcd;
  let node: RealNode;
  let image: string;

  before(async () => {
    etcd = await RealEtcd.start();
    node = await RealNode.start({ flags: ['--store', `etcd=${etcd.hosts.join(',')}`] });
    await node.init();
    const { archive } = await buildDemoImage({ name: 'bb:1' });
    image = (await node.importImage(archive))[0] ?? '';
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
    await etcd?.[Symbol.asyncDispose]();
  });

  test('runs and scales a service, says where its state is, and survives kill -9', async () => {
    const { id } = await createService(node, 'web', {
      image,
      replicas: 2,
      script: 'trap "exit 0" TERM; sleep 1000 & wait $!',
    });
    const before = await untilRunning(node, id, 2);

    assert.match((await node.cli('info')).stdout, /Store: etcd at http:\/\/127\.0\.0\.1:\d+ under \/tsswarm/);
    assert.equal((await node.cli('service', 'scale', 'web=3')).code, 0);
    await untilRunning(node, id, 3);
    await node.killDaemon();
    await node.startDaemon();
    const tasks = await untilRunning(node, id, 3);

    const kept = new Set(tasks.map((task) => task.id));
    assert.ok(before.every((task) => kept.has(task.id)));
    assert.ok(Object.keys(await etcd.client.getAll().prefix('/tsswarm/objects/task/').strings()).length >= 3);
    await node.control.removeService({ service: 'web' });
    await node.untilEmpty();
  });

  test('another cluster cannot begin in the same place, and leaving makes room for it', async () => {
    await using other = await RealNode.start({ flags: ['--store', `etcd=${etcd.hosts.join(',')}`] });

    const refused = await other.cli('init');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /etcd already holds cluster \w+ under \/tsswarm/);

    assert.equal((await node.cli('leave', '--force')).code, 0);
    assert.deepEqual(await etcd.client.getAll().prefix('/tsswarm/').keys(), []);
    assert.equal(
      (
        await other.cli(
          'init',
          '--advertise-addr',
          '127.0.0.1',
          '--listen-addr',
          `127.0.0.1:${await freePort()}`,
        )
      ).code,
      0,
    );
  });

  test('an etcd that is not there is the answer to init', async () => {
    await using lost = await RealNode.start({ flags: ['--store', 'etcd=127.0.0.1:1'] });

    const { code, stderr } = await lost.cli('init');

    assert.equal(code, 1);
    assert.match(stderr, /etcd does not answer \(begin a cluster\)/);
    assert.match(stderr, /can this node reach http:\/\/127\.0\.0\.1:1/);
  });

  test('a daemon that is told another store than its cluster began with does not start', async () => {
    await using forgetful = await RealNode.start();
    await forgetful.stopDaemon();
    const identity = {
      nodeId: 'n',
      clusterId: 'c',
      advertiseAddress: '127.0.0.1',
      clusterSpec: {},
      store: 'etcd',
    };
    writeFileSync(path.join(forgetful.dataRoot, 'node.json'), JSON.stringify(identity));

    await assert.rejects(
      forgetful.startDaemon(),
      /keeps its state in etcd, but the daemon is told to use raft/,
    );
  });
});
