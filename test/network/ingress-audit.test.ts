// The self-audit of the routing mesh: whatever somebody changes behind its back is found and mended (overlay-lab.ts).

import assert from 'node:assert/strict';
import type { Drift } from '../../agent/network/overlay/overlay.ts';
import { checkDamages, type Damage } from './damages.ts';
import {
  aPort,
  bothPorts,
  ensureNetworks,
  ingressState,
  publish,
  publishedContainer,
  uplinkOf,
} from './ingress-lab.ts';
import type { CallableProgram } from './lab.ts';
import {
  type Container,
  check,
  FAR_CLIENT_ADDRESS,
  ingress,
  type OverlayHost,
  type OverlayLab,
  withLab,
} from './overlay-lab.ts';

const PORT = 8080;
const EMPTY_PORT = 8081;
/** Of one address. */
const ADDRESS_PORT = 8082;

let lab: OverlayLab;
let host: OverlayHost;
let other: OverlayHost;
let here: Container;
let there: Container;
let far: CallableProgram;
let program: CallableProgram;

withLab(2, async (opened) => {
  lab = opened;
  [host, other] = lab.hosts as [OverlayHost, OverlayHost];
  await ensureNetworks(lab);
  here = await publishedContainer(lab, host, 10);
  there = await publishedContainer(lab, other, 20);
  far = await lab.farClient();
  program = await lab.peer(host.path);
  await serve(here, there);
});

async function serve(...backends: readonly Container[]): Promise<void> {
  const published = [...bothPorts(PORT, backends), ...bothPorts(EMPTY_PORT, [])];
  await publish(lab, [here, there], published);
  const own = [...published, aPort(ADDRESS_PORT, [there], { hostAddress: host.address })];
  await host.apply(ingress.id, ingressState(lab, host, [here, there], own));
}

/** By both machines, to both containers: the machine under test is entry, and has the container, in turn. */
async function works(): Promise<void> {
  const target = { host: host.address, port: PORT };
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const entry of [host, other]) {
      const seen = new Set<string>();
      for (let round = 0; round < 20; round++) {
        seen.add(await far.call('ask', { ...target, protocol, host: entry.address }));
      }
      const expected = [here, there].map(({ address }) => `${address} ${FAR_CLIENT_ADDRESS}`);
      assert.deepEqual([...seen].sort(), expected, `${protocol} by ${entry.address}`);
    }
    assert.match(await program.call('ask', { ...target, protocol, host: '127.0.0.1' }), / 169\.254\./);
  }
  assert.equal(await far.call('ask', { ...target, protocol: 'tcp', port: EMPTY_PORT }), 'ECONNREFUSED');
  const answer = await far.call('ask', { ...target, protocol: 'tcp', port: ADDRESS_PORT });
  assert.equal(answer, `${there.address} ${FAR_CLIENT_ADDRESS}`);
}

check('nothing is found where nothing is wrong, and an audit changes nothing', async () => {
  await works();
  assert.deepEqual(await host.overlay.call('audit', ingress.id), []);
  assert.deepEqual(await host.overlay.call('repair', ingress.id), []);
});

const damages: readonly Damage[] = [
  ['the rule of answers', 'network', 'ip rule del pref 100', { what: 'return', name: 'rule' }],
  ['the route of answers', 'network', 'ip route flush table 200', { what: 'return', name: 'route' }],
  [
    'another route of answers',
    'network',
    'ip route replace table 200 default via 192.0.2.2 dev vx0 onlink',
    { what: 'return', name: 'route' },
  ],
  [
    'the next hop of answers',
    'network',
    'ip neigh del 192.0.0.8 dev vx0',
    { what: 'return', name: 'neighbour' },
  ],
  [
    'the MAC address of answers',
    'network',
    'nft delete table netdev tsswarm_ingress',
    { what: 'return', name: 'chain' },
  ],
  [
    'a rule for the MAC address of answers',
    'network',
    'nft flush chain netdev tsswarm_ingress send_back',
    { what: 'return', name: 'chain' },
  ],
  ['the VXLAN', 'network', 'ip link del vx0', { what: 'link', name: 'vx0', problem: 'missing' }],
  ['the way out', 'network', 'ip link del up0', { what: 'link', name: 'up0', problem: 'missing' }],
  ["the other machine's entry", 'network', 'ip neigh del 192.0.2.2 dev vx0', { what: 'node' }],
  ['all rules', 'network', 'nft flush ruleset', { what: 'table', name: 'tsswarm_ingress' }],
  ['a chain', 'network', 'nft flush chain ip tsswarm_ingress remember', { what: 'table' }],
  ['containers of ports', 'network', 'nft flush map ip tsswarm_ingress targets', { what: 'table' }],
  [
    'ports of containers here',
    'network',
    'nft flush set ip tsswarm_ingress open',
    { what: 'open-port', name: '10.0.0.10 tcp 80', problem: 'missing' },
  ],
  [
    'a port too many',
    'network',
    'nft add element ip tsswarm_ingress open { 10.0.0.10 . tcp . 22 }',
    { what: 'open-port', name: '10.0.0.10 tcp 22', problem: 'unexpected' },
  ],
  ['the rules of the host', 'host', 'nft flush ruleset', { what: 'host-table' }],
  [
    'a port of the host',
    'host',
    'nft flush map ip tsswarm_overlay_lab published',
    { what: 'host-port', name: 'tcp 8080', problem: 'missing' },
  ],
  [
    'a port of an address of the host',
    'host',
    'nft flush map ip tsswarm_overlay_lab published_at',
    { what: 'host-port', name: 'tcp 192.0.2.1:8082', problem: 'missing' },
  ],
  [
    'a port that leads elsewhere',
    'host',
    'nft add element ip tsswarm_overlay_lab published { tcp . 25 : 127.0.0.1 . 25 }',
    { what: 'host-port', name: 'tcp 25', problem: 'unexpected' },
  ],
];

checkDamages(damages, { host: () => host, networkId: ingress.id, works });

check('loopback addresses that are not routed to the ingress any more are', async () => {
  host.run(`sysctl -qw net.ipv4.conf.${uplinkOf(host)}.route_localnet=0`);

  const drift = await host.overlay.call<Drift[]>('repair', ingress.id);

  assert.ok(drift.some(({ what, name }) => what === 'link' && name === 'settings'));
  await works();
});

check('ports whose elements somebody took away can still be changed', async () => {
  host.run('nft flush ruleset');
  host.inNetwork(ingress.id, 'nft flush ruleset');

  await serve(there);

  const answer = await far.call('ask', { protocol: 'tcp', host: host.address, port: PORT });
  assert.equal(answer, `${there.address} ${FAR_CLIENT_ADDRESS}`);
});
