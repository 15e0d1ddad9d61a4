// Networks with IPv6 beside IPv4: the same as IPv4 in every respect. Three machines (overlay-lab.ts).

import assert from 'node:assert/strict';
import type { PolicyGroup } from '../../agent/network/overlay/overlay.ts';
import { eventually } from '../support/eventually.ts';
import { checkDamages, type Damage } from './damages.ts';
import {
  type Container,
  check,
  dual,
  flowMoves,
  type OverlayHost,
  type OverlayLab,
  WIRE_IPV6_ADDRESS,
  withLab,
} from './overlay-lab.ts';

const VIP = 'fd00:3::2';
const GATEWAY = 'fd00:3::1';
const protocols = ['tcp', 'udp'] as const;

let lab: OverlayLab;
let one: OverlayHost;
/** Two on each of three hosts. */
let all: Container[];
let client: Container;

withLab(3, async (opened) => {
  lab = opened;
  one = lab.hosts[0]!;
  all = [];
  for (const [index, host] of lab.hosts.entries()) {
    await host.ensure(dual);
    for (const last of [1, 2]) all.push(await container(host, (index + 1) * 10 + last));
  }
  client = all[0]!;
});

function container(host: OverlayHost, last: number, networkId = dual.id): Promise<Container> {
  return lab.container(host, networkId, `10.0.3.${last}`, { ipv6Address: `fd00:3::${last}` });
}

/** These containers exist, and these of them get the service's new connections. */
async function serve(backends: readonly Container[], existing = all, affine = false): Promise<void> {
  const affinity = affine ? ({ affinity: 'client-address' } as const) : {};
  const services = [
    { vip: VIP, backends: backends.map(({ ipv6Address }) => ipv6Address), ...affinity },
    { vip: '10.0.3.2', backends: backends.map(({ address }) => address), ...affinity },
  ];
  await lab.connect(dual.id, existing, { services });
}

async function serversSeen(from: Container, protocol: 'tcp' | 'udp', times: number): Promise<Set<string>> {
  const seen = new Set<string>();
  for (let round = 0; round < times; round++) seen.add((await from.ask(protocol, VIP)).split(' ')[0]!);
  return seen;
}

for (const protocol of protocols) {
  check(
    `everybody reaches everybody by both families, directly and by the virtual address (${protocol})`,
    async () => {
      for (const from of all) {
        for (const to of all) {
          await serve([to]);
          assert.equal(await from.ask(protocol, to.address), `${to.address} ${from.address}`);
          assert.equal(await from.ask(protocol, to.ipv6Address), `${to.ipv6Address} ${from.ipv6Address}`);
          const seenAs = from === to ? GATEWAY : from.ipv6Address;
          assert.equal(await from.ask(protocol, VIP), `${to.ipv6Address} ${seenAs}`);
        }
      }
    },
  );

  check(`new connections go to all backends, with affinity to one (${protocol})`, async () => {
    await serve(all);
    const expected = new Set(all.map(({ ipv6Address }) => ipv6Address));
    assert.deepEqual(await serversSeen(client, protocol, 80), expected);

    await serve(all, all, true);
    for (const from of all) assert.equal((await serversSeen(from, protocol, 6)).size, 1);
  });
}

check('backends get new connections by their weights', async () => {
  const [light, heavy] = [all[2]!, all[4]!];
  const services = [{ vip: VIP, backends: [light.ipv6Address, heavy.ipv6Address], weights: [1, 9] }];
  await lab.connect(dual.id, all, { services });

  let ofLight = 0;
  for (let round = 0; round < 150; round++) {
    if ((await client.ask('tcp', VIP)).startsWith(light.ipv6Address)) ofLight++;
  }

  // Outside of this once in more than 10 million runs.
  assert.ok(ofLight >= 1 && ofLight <= 40, `${ofLight} of 150`);
});

check('a service without backends refuses at once, and its connections go on', async () => {
  await serve([all[3]!]);
  await client.peer.call('open', { name: 'last', host: VIP });

  await serve([]);

  assert.equal(await client.ask('tcp', VIP), 'ECONNREFUSED');
  assert.equal(await client.ask('udp', VIP), 'ECONNREFUSED');
  assert.equal(await client.peer.call('send', { name: 'last', text: 'still here' }), 'still here');
});

check('a backend has an address of the family of the virtual one', async () => {
  const services = [{ vip: VIP, backends: ['10.0.3.11'] }];
  await assert.rejects(one.apply(dual.id, { services }), {
    code: 'invalid-argument',
    message: 'services.backends: 10.0.3.11 cannot answer for fd00:3::2',
  });
});

check('a flow that is ended goes to another backend', async () => {
  const [, leaving, other] = all as [Container, Container, Container];
  await serve([leaving]);
  assert.match(await client.peer.call('askAgain', { host: VIP }), new RegExp(`^${leaving.ipv6Address} `));
  await serve([other]);
  assert.match(await client.peer.call('askAgain', { host: VIP }), new RegExp(`^${leaving.ipv6Address} `));

  await client.host.overlay.call('endFlows', [dual.id, [leaving.address, leaving.ipv6Address]]);

  assert.match(await client.peer.call('askAgain', { host: VIP }), new RegExp(`^${other.ipv6Address} `));
  await client.host.overlay.call('endFlows', [dual.id, [other.ipv6Address]]);
});

check('connections to a backend that vanished end, by either address, and UDP goes to another', async () => {
  const victim = await container(lab.hosts[1]!, 50);
  await serve([victim], [...all, victim]);
  await client.peer.call('open', { name: 'by-vip', host: VIP });
  await client.peer.call('open', { name: 'direct', host: victim.ipv6Address });
  assert.match(await client.peer.call('askAgain', { host: VIP }), /^fd00:3::50 /);
  // Nothing tells the client: its node is gone with all that was on it.
  lab.wire('ip link set port2 down');

  await serve([all[4]!]);

  for (const name of ['by-vip', 'direct']) {
    assert.match(await client.peer.call('send', { name, text: 'anyone?' }), /ECONNRESET|closed/);
  }
  await flowMoves(client.peer, { host: VIP }, (answer) =>
    assert.match(answer, new RegExp(`^${all[4]!.ipv6Address} `)),
  );
  lab.wire('ip link set port2 up');
  await victim.leave();
});

check('a container cannot send with the address of another', async () => {
  const [from, to] = [all[0]!, all[1]!];
  from.run('ip address add fd00:3::99/128 dev eth0 nodad');
  from.run(`ip route add ${to.ipv6Address}/128 via ${GATEWAY} dev eth0 onlink src fd00:3::99`);

  assert.equal(await from.ask('udp', to.ipv6Address), 'silence');

  from.run(`ip route del ${to.ipv6Address}/128`);
  from.run('ip address del fd00:3::99/128 dev eth0');
});

check('addresses that nobody has are refused at once', async () => {
  for (const protocol of protocols) {
    assert.match(await client.ask(protocol, 'fd00:3::77'), /ECONNREFUSED/);
  }
});

check('an address is used again at once, here or on another node', async () => {
  for (const host of [0, 1, 1, 0].map((position) => lab.hosts[position]!)) {
    const mover = await container(host, 30);
    await lab.connect(dual.id, [...all, mover]);
    for (const from of [all[0]!, all[2]!]) {
      assert.equal(await from.ask('tcp', mover.ipv6Address), `${mover.ipv6Address} ${from.ipv6Address}`);
    }
    await mover.leave();
    await lab.connect(dual.id, all);
  }
});

check('names have addresses of both families, and addresses of both have names', async () => {
  const names = [
    { name: 'web', addresses: ['10.0.3.2', VIP] },
    { name: 'old', addresses: ['10.0.3.9'] },
  ];
  await lab.connect(dual.id, all, { names: [names] });

  assert.deepEqual(await client.resolve('web'), ['10.0.3.2']);
  assert.deepEqual(await client.resolve('web', 'AAAA'), [VIP]);
  assert.equal(await client.resolve('old', 'AAAA'), 'ENODATA');
  assert.deepEqual(await client.resolve(VIP, 'PTR'), ['web']);
  assert.equal(await client.resolve('fd00:3::9', 'PTR'), 'ENOTFOUND');
});

check('a policy holds for both families', async () => {
  const groups = [client, all[2]!, all[4]!].map(
    ({ address, ipv6Address }, index): PolicyGroup => ({
      name: `g${index}`,
      addresses: [address, ipv6Address],
    }),
  );
  const allow = [{ from: 'g0', to: 'g1', port: { protocol: 'tcp', number: 80 } } as const];
  await lab.connect(dual.id, all, { policy: { groups, allow } });

  const [target, stranger] = [all[2]!, all[4]!];
  assert.match(await client.ask('tcp', target.ipv6Address), /^fd00/);
  assert.equal(await client.ask('udp', target.ipv6Address), 'ECONNREFUSED');
  assert.equal(await stranger.ask('tcp', target.ipv6Address), 'ECONNREFUSED');

  await lab.connect(dual.id, all);
  assert.match(await stranger.ask('tcp', target.ipv6Address), /^fd00/);
});

check('without IPv6 on the host, the outside is refused at once', async () => {
  for (const protocol of protocols) {
    assert.match(await client.ask(protocol, WIRE_IPV6_ADDRESS), /ECONNREFUSED/);
  }
});

check('with IPv6 on the host, an audit opens the way out, and containers leave as their host', async () => {
  const outside = await lab.peer(lab.wirePath, '', WIRE_IPV6_ADDRESS);
  const address = one.addIpv6();
  assert.equal((await one.overlay.call<unknown[]>('repair', dual.id)).length, 1);
  assert.deepEqual(await one.overlay.call('audit', dual.id), []);

  for (const protocol of protocols) {
    assert.match(
      await client.ask(protocol, WIRE_IPV6_ADDRESS),
      new RegExp(`^${WIRE_IPV6_ADDRESS} ${address}$`),
    );
  }
  // Nobody outside gets in, whatever he knows of the addresses.
  const [inside = ''] =
    one.inNetwork(dual.id, 'ip -6 -o address show dev up0').match(/fd74:[0-9a-f:]+/) ?? [];
  for (const target of [inside, client.ipv6Address]) {
    lab.wire(`ip route add ${target}/128 via ${address}`);
    if (target !== inside) one.run(`ip route add ${target}/128 via ${inside}`);
    for (const protocol of protocols) {
      assert.equal(await outside.call('ask', { protocol, host: target }), 'silence');
    }
  }
  one.run(`ip route del ${client.ipv6Address}/128`);
});

const damages: readonly Damage[] = [
  [
    'a route',
    'network',
    'ip -6 route del fd00:3::21',
    { what: 'route', name: 'fd00:3::21', problem: 'missing' },
  ],
  [
    'a route too many',
    'network',
    'ip -6 route add fd00:3::99 via fe80::5:c000:202 dev vx0 onlink',
    { what: 'route', name: 'fd00:3::99' },
  ],
  [
    'the unreachable route',
    'network',
    'ip -6 route del unreachable fd00:3::/64',
    { what: 'route', name: 'fd00:3::/64' },
  ],
  ['the gateway', 'network', 'ip address del fd00:3::1/128 dev lo', { what: 'gateway', name: GATEWAY }],
  [
    "a node's neighbour",
    'network',
    'ip neigh del fe80::5:c000:202 dev vx0',
    { what: 'node', name: '192.0.2.2' },
  ],
  [
    'a route to a container',
    'network',
    'ip -6 route del fd00:3::11',
    { what: 'endpoint', name: 'fd00:3::11' },
  ],
  ['forwarding', 'network', 'sysctl -qw net.ipv6.conf.all.forwarding=0', { what: 'link', name: 'settings' }],
  ['the VXLAN', 'network', 'ip link del vx0', { what: 'link', name: 'vx0' }],
  ['the way out', 'network', 'ip -6 route del default', { what: 'link', name: 'up0' }],
  ['a rule', 'network', 'nft flush chain ip6 tsswarm balance', { what: 'table' }],
  ['a hairpin', 'network', 'nft flush set ip6 tsswarm hairpin', { what: 'hairpin', name: 'fd00:3::11' }],
  ['all rules', 'network', 'nft flush ruleset', { what: 'table' }],
  ['the rules of the host', 'host', 'nft delete table ip6 tsswarm_overlay_lab', { what: 'host-table' }],
];

checkDamages(damages, {
  host: () => one,
  networkId: dual.id,
  works: async () => {
    await serve([all[2]!]);
    for (const protocol of protocols) {
      assert.equal(await client.ask(protocol, VIP), `${all[2]!.ipv6Address} ${client.ipv6Address}`);
      assert.equal(
        await all[2]!.ask(protocol, client.ipv6Address),
        `${client.ipv6Address} ${all[2]!.ipv6Address}`,
      );
      assert.match(await client.ask(protocol, WIRE_IPV6_ADDRESS), /2001:db8::1$/);
    }
  },
});

check('killing the process interrupts nothing, and the next one takes over', async () => {
  await serve([all[2]!]);
  await client.peer.call('open', { name: 'kept', host: VIP });
  const before = await one.list();

  await one.restart();
  await one.ensure(dual);

  assert.equal(await client.peer.call('send', { name: 'kept', text: 'adopted' }), 'adopted');
  assert.deepEqual(await one.list(), before);
  assert.deepEqual(await one.overlay.call('audit', dual.id), []);
});

check('a container of two networks is answered by the one that was asked', async () => {
  const other = {
    ...dual,
    id: 'other',
    vni: 0x100004,
    subnets: [
      { subnet: '10.0.4.0/24', gateway: '10.0.4.1' },
      { subnet: 'fd00:4::/64', gateway: 'fd00:4::1' },
    ],
  };
  await one.ensure(other);
  const far = await lab.container(one, other.id, '10.0.4.20', { ipv6Address: 'fd00:4::20' });
  const further = one.endpoint(other.id, '10.0.4.10', {
    id: 'further',
    ipv6Address: 'fd00:4::10',
    isDefaultRoute: false,
    namespacePath: client.endpoint.namespacePath,
  });
  await one.overlay.call('attach', further);

  assert.equal(await client.ask('tcp', 'fd00:4::20'), 'fd00:4::20 fd00:4::10');
  assert.equal(await far.ask('tcp', 'fd00:4::10'), 'fd00:4::10 fd00:4::20');
  assert.equal(await client.ask('tcp', all[2]!.ipv6Address), `${all[2]!.ipv6Address} ${client.ipv6Address}`);
  assert.match(await client.ask('tcp', WIRE_IPV6_ADDRESS), /2001:db8::1$/);
  await one.overlay.call('remove', other.id);
});

check('a network keeps the families that it was made with', async () => {
  await assert.rejects(one.ensure({ ...dual, subnets: [dual.subnets[0]!] }), { code: 'failed-precondition' });
  const isTooSmall = { ...dual, id: 'small', vni: 0x100005, mtu: 1200 };
  await assert.rejects(one.ensure(isTooSmall), { message: 'mtu: 1200 is less than IPv6 needs: 1280' });
});

check('with its networks the host gives up forwarding', async () => {
  assert.equal(one.run('sysctl -n net.ipv6.conf.all.forwarding').trim(), '1');
  for (const each of all.filter(({ host }) => host === one)) await each.leave();
  await one.overlay.call('remove', dual.id);

  await eventually(() => {
    assert.equal(one.run('sysctl -n net.ipv6.conf.all.forwarding').trim(), '0');
    assert.doesNotMatch(one.run('nft list ruleset'), /tsswarm/);
    return true;
  });
});
