// A cluster whose containers' traffic goes by addresses and a port of its own: two hosts, joined by the command line.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from '../support/echo-service.ts';
import { NetworkCluster, serverNames, serversIn, untilAnswered } from '../support/network-cluster.ts';
import type { RealCluster } from '../support/real-cluster.ts';
import type { RealNode } from '../support/real-node.ts';
import { whyNoRealNode } from '../support/real-node.ts';

const PORT = 7789;
const dataAddress = (position: number) => `10.98.0.${position + 1}`;

/** Each host has a second address, and counts what it sends by VXLAN from and to the one and the other. */
async function form({ lan, nodes }: RealCluster): Promise<void> {
  for (const [position, host] of lan.hosts.entries()) {
    lan.run(host, 'ip', 'address', 'add', `${dataAddress(position)}/24`, 'dev', 'eth0');
    lan.run(host, 'nft', 'add table ip wire');
    lan.run(host, 'nft', 'add chain ip wire out { type filter hook postrouting priority 300 ; }');
    const counters = { asked: `ip saddr 10.98.0.0/24 udp dport ${PORT}`, other: 'udp dport { 4789, 4790 }' };
    for (const [name, match] of Object.entries(counters))
      lan.run(host, 'nft', `add rule ip wire out ${match} counter comment "${name}"`);
  }
  const [first, second] = nodes as [RealNode, RealNode];
  const own = ['--advertise-addr', lan.addressOf(0), '--data-path-addr', dataAddress(0)];
  await first.succeed('init', ...own, '--data-path-port', String(PORT));
  const token = (await first.succeed('join-token', '--quiet', 'worker')).stdout.trim();
  const flags = ['--token', token, '--data-path-addr', dataAddress(1)];
  await second.succeed('join', ...flags, `${lan.addressOf(0)}:2377`);
}

test('containers talk by the data path addresses and the port that the cluster was given', {
  skip: whyNoRealNode() ?? false,
}, async () => {
  await using world = await NetworkCluster.begin('tsdp', 2, form);
  const { lan } = world.cluster;
  await world.createNetwork('front');
  const web = await world.startEcho('web', { replicas: 2, networks: ['front'] });
  const client = await world.startEcho('client', { replicas: 2, networks: ['front'] });
  for (const task of client.tasks) {
    await untilAnswered({ task }, { host: 'web' });
    const answers = await ask({ task }, { host: 'web', count: 40 });
    assert.deepEqual(serversIn(answers), serverNames(web.tasks));
  }
  for (const host of lan.hosts) {
    const rules = lan.output(host, 'nft', 'list table ip wire');
    const packets = (name: string) =>
      Number(new RegExp(`packets (\\d+) bytes \\d+ comment "${name}"`).exec(rules)?.[1]);
    assert.ok(packets('asked') > 50);
    assert.equal(packets('other'), 0);
  }
});
