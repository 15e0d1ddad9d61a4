// The self-audit: whatever somebody changes behind the overlay's back is found and mended (overlay-lab.ts).

import assert from 'node:assert/strict';
import { checkDamages, type Damage } from './damages.ts';
import { type Container, check, net, type OverlayHost, type OverlayLab, withLab } from './overlay-lab.ts';

let lab: OverlayLab;
let host: OverlayHost;
let here: Container;
let there: Container;

withLab(2, async (opened) => {
  lab = opened;
  for (const each of lab.hosts) await each.ensure(net);
  host = lab.hosts[0]!;
  here = await lab.container(host, net.id, '10.0.1.10');
  there = await lab.container(lab.hosts[1]!, net.id, '10.0.1.20');
  const leaver = await lab.container(lab.hosts[1]!, net.id, '10.0.1.21');
  const services = [
    { vip: '10.0.1.2', backends: [there.address] },
    { vip: '10.0.1.3', backends: [] },
    { vip: '10.0.1.4', backends: [there.address], affinity: 'client-address' } as const,
  ];
  await lab.connect(net.id, [here, there, leaver], { services });
  await lab.connect(net.id, [here, there], { services });
});

async function works(): Promise<void> {
  assert.deepEqual(await host.overlay.call('audit', net.id), []);
  for (const target of [there.address, '10.0.1.2', '10.0.1.4']) {
    assert.equal(await here.ask('tcp', target), `${there.address} ${here.address}`);
    assert.equal(await here.ask('udp', target), `${there.address} ${here.address}`);
  }
  assert.equal(await there.ask('tcp', here.address), `${here.address} ${there.address}`);
  assert.equal(await here.ask('tcp', '10.0.1.3'), 'ECONNREFUSED');
}

check('nothing is found where nothing is wrong, and an audit changes nothing', async () => {
  await works();
  assert.deepEqual(await host.overlay.call('repair', net.id), []);
});

const damages: readonly Damage[] = [
  ['a route', 'network', 'ip route del 10.0.1.20', { what: 'route', problem: 'missing' }],
  [
    'another node in a route',
    'network',
    'ip route replace 10.0.1.20 via 192.0.2.77 dev vx0 onlink',
    { what: 'route', problem: 'different' },
  ],
  [
    'a route too many',
    'network',
    'ip route add 10.0.1.99 via 192.0.2.2 dev vx0 onlink',
    { what: 'route', name: '10.0.1.99', problem: 'unexpected' },
  ],
  [
    'the unreachable route',
    'network',
    'ip route del unreachable 10.0.1.0/24 metric 2147483647',
    { what: 'route' },
  ],
  ["a node's neighbour", 'network', 'ip neigh del 192.0.2.2 dev vx0', { what: 'node', problem: 'different' }],
  [
    "a node's entry",
    'network',
    'bridge fdb del 02:54:c0:00:02:02 dev vx0 dst 192.0.2.2',
    { what: 'node', name: '192.0.2.2' },
  ],
  ['a link that is down', 'network', 'ip link set vx0 down', { what: 'link', name: 'vx0' }],
  ['the VXLAN', 'network', 'ip link del vx0', { what: 'link', name: 'vx0', problem: 'missing' }],
  ['the way out', 'network', 'ip link del up0', { what: 'link', name: 'up0', problem: 'missing' }],
  ['forwarding', 'network', 'sysctl -qw net.ipv4.ip_forward=0', { what: 'link', name: 'settings' }],
  ['a route to a container', 'network', 'ip route del 10.0.1.10', { what: 'endpoint', problem: 'different' }],
  ["a container's link", 'network', 'ip link del v1000', { what: 'endpoint', problem: 'missing' }],
  [
    'a service',
    'network',
    'nft delete element ip tsswarm svc { 10.0.1.2 }',
    { what: 'table', problem: 'different' },
  ],
  ['another backend', 'network', 'nft flush map ip tsswarm lb', { what: 'table' }],
  [
    'a service without backends',
    'network',
    'nft flush map ip tsswarm svc_empty',
    { what: 'service', name: '10.0.1.3', problem: 'missing' },
  ],
  [
    'an address that is gone',
    'network',
    'nft flush set ip tsswarm gone',
    { what: 'gone', name: '10.0.1.21' },
  ],
  ['a hairpin', 'network', 'nft flush set ip tsswarm hairpin', { what: 'hairpin', name: '10.0.1.10' }],
  ['a rule', 'network', 'nft flush chain ip tsswarm balance', { what: 'table' }],
  ['all rules', 'network', 'nft flush ruleset', { what: 'table' }],
  ['the rules of the host', 'host', 'nft flush ruleset', { what: 'host-table' }],
  [
    'the ways out of the host',
    'host',
    'nft flush set ip tsswarm_overlay_lab uplinks',
    { what: 'host-table' },
  ],
];

checkDamages(damages, { host: () => host, networkId: net.id, works });

check('a service whose elements somebody took away can still be changed', async () => {
  host.inNetwork(net.id, 'nft flush ruleset');
  const remotes = [{ address: there.address, nodeAddress: there.host.address }];

  await host.apply(net.id, { remotes, services: [{ vip: '10.0.1.2', backends: [here.address] }] });

  assert.equal(await here.ask('tcp', '10.0.1.2'), `${here.address} ${net.subnets[0]!.gateway}`);
});
