// Published ports of machines with IPv6, and an ingress network that has it: the routing mesh by both families
// (overlay-lab.ts). A client on the wire, which is no machine of ours.

import assert from 'node:assert/strict';
import type { OverlayNetwork, PublishedPort } from '../../agent/network/overlay/overlay.ts';
import { checkDamages, type Damage } from './damages.ts';
import { portProblems } from './ingress-lab.ts';
import type { CallableProgram } from './lab.ts';
import {
  Container,
  check,
  dual,
  ingress,
  type OverlayHost,
  type OverlayLab,
  WIRE_IPV6_ADDRESS,
  withLab,
} from './overlay-lab.ts';

const PORT = 8080;
const TARGET_PORT = 80;
const protocols = ['tcp', 'udp'] as const;
const dualIngress: OverlayNetwork = {
  ...ingress,
  subnets: [...ingress.subnets, { subnet: 'fd00::/64', gateway: 'fd00::1' }],
};

let lab: OverlayLab;
let one: OverlayHost;
/** One on each machine. */
let containers: [Container, Container, Container];
let addresses: string[];
let outside: CallableProgram;
/** Programs of the machines themselves. */
let programs: CallableProgram[];

withLab(3, async (opened) => {
  lab = opened;
  one = lab.hosts[0]!;
  addresses = lab.hosts.map((host) => host.addIpv6());
  const made: Container[] = [];
  for (const [index, host] of lab.hosts.entries()) {
    for (const network of [dual, dualIngress]) await host.ensure(network);
    made.push(await publishedContainer(host, 10 + index));
  }
  containers = made as typeof containers;
  outside = await lab.peer(lab.wirePath, '', WIRE_IPV6_ADDRESS);
  programs = [];
  for (const host of lab.hosts) programs.push(await lab.peer(host.path));
});

/** Of a network of its own, which leads out, and of the ingress. */
async function publishedContainer(host: OverlayHost, number: number): Promise<Container> {
  const own = host.endpoint(dual.id, `10.0.3.${number}`, { ipv6Address: `fd00:3::${number}` });
  const { namespacePath } = own;
  await host.overlay.call('attach', own);
  const address = `10.0.0.${number}`;
  const ipv6Address = `fd00::${number}`;
  const changes = { ipv6Address, namespacePath, isDefaultRoute: false };
  const endpoint = host.endpoint(ingress.id, address, changes);
  await host.overlay.call('attach', endpoint);
  return new Container(host, endpoint, await lab.peer(namespacePath, address, ipv6Address));
}

async function serve(backends: readonly Container[], changes: Partial<PublishedPort> = {}): Promise<void> {
  const published = protocols.map((protocol) => ({
    protocol,
    port: PORT,
    backends: backends.flatMap(({ address, ipv6Address }) =>
      [address, ipv6Address].map((each) => ({ address: each, port: TARGET_PORT })),
    ),
    ...changes,
  }));
  const nodes = lab.hosts.map(({ address }) => address);
  await lab.connect(ingress.id, containers, { nodes, published });
}

for (const protocol of protocols) {
  check(`a client is seen as itself, whichever machine it comes by (${protocol})`, async () => {
    for (const backend of containers) {
      await serve([backend]);
      for (const host of addresses) {
        const answer = await outside.call('ask', { protocol, host, port: PORT });
        assert.equal(answer, `${backend.ipv6Address} ${WIRE_IPV6_ADDRESS}`, `by ${host}`);
      }
      const answer = await outside.call('ask', { protocol, host: one.address, port: PORT });
      assert.equal(answer, `${backend.address} 192.0.2.254`);
    }
  });

  check(`a machine reaches the ports of every machine, its own included (${protocol})`, async () => {
    for (const backend of containers) {
      await serve([backend]);
      for (const [index, program] of programs.entries()) {
        for (const host of addresses) {
          const answer = await program.call('ask', { protocol, host, port: PORT });
          assert.equal(answer, `${backend.ipv6Address} ${addresses[index]}`, `by ${host}`);
        }
      }
    }
  });

  check(`a container reaches the ports of every machine (${protocol})`, async () => {
    await serve([containers[1]]);
    for (const host of addresses) {
      const answer = await containers[0].peer.call<string>('ask', { protocol, host, port: PORT });
      assert.match(answer, new RegExp(`^${containers[1].ipv6Address} `), `by ${host}`);
    }
  });
}

check('a machine reaches its own ports by ::1', async () => {
  await serve([containers[1]]);
  for (const program of programs) {
    for (const protocol of protocols) {
      const answer = await program.call<string>('ask', { protocol, host: '::1', port: PORT });
      assert.match(answer, new RegExp(`^${containers[1].address} 169\\.254\\.`));
    }
  }
});

check('a port without backends is refused at once', async () => {
  await serve([]);
  for (const host of addresses) {
    assert.equal(await outside.call('ask', { protocol: 'tcp', host, port: PORT }), 'ECONNREFUSED');
  }
});

check('a port of one address is published there and nowhere else', async () => {
  await serve([containers[1]], { hostAddress: addresses[0]! });
  const ask = (host: string): Promise<string> => outside.call('ask', { protocol: 'tcp', host, port: PORT });

  assert.match(await ask(addresses[0]!), new RegExp(`^${containers[1].ipv6Address} `));
  assert.equal(await ask(one.address), 'ECONNREFUSED');
  assert.equal(await ask(addresses[1]!), 'ECONNREFUSED');
  assert.equal((await portProblems(lab.hosts[1]!)).length, 2);
});

check('containers do not reach each other over the ingress', async () => {
  await serve([containers[1]]);
  assert.equal(await containers[0].ask('tcp', 'fd00::11', 81), 'silence');
});

const damages: readonly Damage[] = [
  ['a port', 'network', 'nft flush map ip6 tsswarm_ingress ports', { what: 'table' }],
  ['an open port', 'network', 'nft flush set ip6 tsswarm_ingress open', { what: 'open-port' }],
  ['the way back', 'network', 'ip -6 rule del pref 100', { what: 'return', name: 'rule' }],
  ['the route back', 'network', 'ip -6 route flush table 200', { what: 'return', name: 'route' }],
  ['a port of the host', 'host', 'nft flush map ip6 tsswarm_overlay_lab published', { what: 'host-port' }],
];

checkDamages(damages, {
  host: () => one,
  networkId: ingress.id,
  works: async () => {
    await serve([containers[0]]);
    for (const host of addresses) {
      const answer = await outside.call('ask', { protocol: 'tcp', host, port: PORT });
      assert.equal(answer, `${containers[0].ipv6Address} ${WIRE_IPV6_ADDRESS}`);
    }
  },
});

check('the next process takes over what is published', async () => {
  await serve([containers[1]]);
  await one.restart();
  for (const network of [dual, dualIngress]) await one.ensure(network);

  assert.deepEqual(await one.overlay.call('audit', ingress.id), []);
  const answer = await outside.call('ask', { protocol: 'tcp', host: addresses[0]!, port: PORT });
  assert.equal(answer, `${containers[1].ipv6Address} ${WIRE_IPV6_ADDRESS}`);
});
