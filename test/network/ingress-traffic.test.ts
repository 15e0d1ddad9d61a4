// The routing mesh: ports published on every machine, whichever one the container is on. Three machines, and a client
// beyond a router (overlay-lab.ts).

import assert from 'node:assert/strict';
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
  net,
  type OverlayHost,
  type OverlayLab,
  withLab,
} from './overlay-lab.ts';

const PORT = 8080;

let lab: OverlayLab;
let hosts: [OverlayHost, OverlayHost, OverlayHost];
/** One on each machine. */
let containers: [Container, Container, Container];
let far: CallableProgram;
/** In no network but the services' own, on the first machine. */
let neighbour: Container;
/** In the first machine's ingress namespace. */
let inside: CallableProgram;
/** Programs of the machines themselves. */
let programs: CallableProgram[];

withLab(3, async (opened) => {
  lab = opened;
  hosts = lab.hosts as typeof hosts;
  await ensureNetworks(lab);
  const made: Container[] = [];
  for (const [index, host] of hosts.entries()) made.push(await publishedContainer(lab, host, 10 + index));
  containers = made as typeof containers;
  neighbour = await lab.container(hosts[0], net.id, '10.0.1.50');
  far = await lab.farClient();
  programs = [];
  // They serve the containers' port, as programs of a machine may.
  for (const host of hosts) programs.push(await lab.peer(host.path));
});

async function serve(...backends: readonly Container[]): Promise<void> {
  await publish(lab, containers, bothPorts(PORT, backends));
}

for (const protocol of ['tcp', 'udp'] as const) {
  check(
    `a client beyond a router is seen as itself, whichever machine it comes by (${protocol})`,
    async () => {
      for (const backend of containers) {
        await serve(backend);
        for (const entry of hosts) {
          const answer = await far.call('ask', { protocol, host: entry.address, port: PORT });
          assert.equal(answer, `${backend.address} ${FAR_CLIENT_ADDRESS}`, `by ${entry.address}`);
        }
      }
    },
  );

  check(
    `a machine reaches the ports of every machine, its own and 127.0.0.1 included (${protocol})`,
    async () => {
      for (const backend of containers) {
        await serve(backend);
        for (const [index, host] of hosts.entries()) {
          for (const entry of hosts) {
            const answer = await programs[index]!.call('ask', { protocol, host: entry.address, port: PORT });
            assert.equal(answer, `${backend.address} ${host.address}`, `${host.address} by ${entry.address}`);
          }
          const answer = await programs[index]!.call<string>('ask', {
            protocol,
            host: '127.0.0.1',
            port: PORT,
          });
          assert.match(answer, new RegExp(`^${backend.address} 169\\.254\\.`));
        }
      }
    },
  );

  check(`a container reaches the ports of its own machine and of others (${protocol})`, async () => {
    for (const backend of containers) {
      await serve(backend);
      for (const from of [neighbour, containers[0], containers[1]]) {
        for (const entry of hosts) {
          const answer = await from.ask(protocol, entry.address, PORT);
          const client = entry === from.host ? '169\\.254\\.\\d+\\.\\d+' : from.host.address;
          assert.match(
            answer,
            new RegExp(`^${backend.address} ${client}$`),
            `${from.address} by ${entry.address}`,
          );
        }
      }
    }
  });

  check(`new connections go to all backends (${protocol})`, async () => {
    await serve(...containers);

    const seen = new Set<string>();
    for (let round = 0; round < 60; round++) {
      seen.add(await far.call('ask', { protocol, host: hosts[0].address, port: PORT }));
    }

    assert.deepEqual(
      [...seen].sort(),
      containers.map(({ address }) => `${address} ${FAR_CLIENT_ADDRESS}`),
    );
  });

  check(`ports without backends are refused at once (${protocol})`, async () => {
    await serve();

    for (const entry of hosts) {
      assert.equal(await far.call('ask', { protocol, host: entry.address, port: PORT }), 'ECONNREFUSED');
    }
    assert.equal(await programs[0]!.call('ask', { protocol, host: '127.0.0.1', port: PORT }), 'ECONNREFUSED');
  });
}

check('a client has the same port for every machine, which send it to the same container', async () => {
  await serve(containers[2]);

  const addresses = hosts.map(({ address }) => address);
  const answers = await far.call('askAllFromOnePort', { hosts: addresses, port: PORT });

  assert.deepEqual(answers, Array(6).fill(`${containers[2].address} ${FAR_CLIENT_ADDRESS}`));
});

check('with affinity, a client gets one backend whichever machine it comes by', async () => {
  for (const order of [containers, containers.toReversed()]) {
    // What a machine had before makes no difference.
    await serve(...order.slice(1));
    await publish(lab, containers, [aPort(PORT, order, { affinity: 'client-address' })]);
    const seen = new Set<string>();
    for (let round = 0; round < 12; round++) {
      for (const entry of hosts) {
        seen.add(await far.call('ask', { protocol: 'tcp', host: entry.address, port: PORT }));
      }
    }
    assert.equal(seen.size, 1, [...seen].join());
  }
});

check('backends of a port get new connections by their weights', async () => {
  const [light, heavy] = containers;
  const backends = [
    { address: light.address, port: 80 },
    { address: heavy.address, port: 80, weight: 9 },
  ];
  await publish(lab, containers, [aPort(PORT, [], { backends })]);

  let ofLight = 0;
  for (let round = 0; round < 150; round++) {
    const answer = await far.call<string>('ask', { protocol: 'tcp', host: hosts[2].address, port: PORT });
    if (answer.startsWith(light.address)) ofLight++;
  }

  // Outside of this once in more than 10 million runs.
  assert.ok(ofLight >= 1 && ofLight <= 40, `${ofLight} of 150`);
});

check('a container that is only in the ingress gets out by it', async () => {
  const lone = await lab.container(hosts[1], 'ingress', '10.0.0.40', { id: 'lone' });
  await publish(lab, [...containers, lone], bothPorts(PORT, [lone]));

  for (const protocol of ['tcp', 'udp'] as const) {
    assert.equal(await lone.ask(protocol, hosts[0].address, 80), `${hosts[0].address} ${hosts[1].address}`);
    const answer = await far.call('ask', { protocol, host: hosts[2].address, port: PORT });
    assert.equal(answer, `${lone.address} ${FAR_CLIENT_ADDRESS}`);
  }
  await serve();
  await lone.leave();
});

check('a container of several networks still reaches the outside by its own', async () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    assert.equal(
      await containers[0].ask(protocol, hosts[1].address),
      `${hosts[1].address} ${hosts[0].address}`,
    );
  }
});

check(
  'containers do not reach each other over the ingress, nor do others what is not published',
  async () => {
    await serve(containers[0]);
    const [first, second, third] = containers;
    const [hostEnd = ''] =
      hosts[0].run('ip -4 -o address show dev', uplinkOf(hosts[0])).match(/169\.254[\d.]+/) ?? [];
    const networkEnd = hostEnd.replace(/\d+$/, (last) => String(Number(last) + 1));
    lab.wire(`ip route add ${networkEnd}/32 via ${hosts[0].address}`);
    const outsider = await lab.peer(lab.wirePath);

    const answers = await Promise.all([
      first.ask('tcp', second.address),
      second.ask('udp', first.address),
      third.ask('tcp', first.address),
      outsider.call('ask', { protocol: 'udp', host: networkEnd, port: PORT }),
    ]);

    assert.deepEqual(answers, ['silence', 'silence', 'silence', 'silence']);
  },
);

check('other machines reach no port of a container but those that are published', async () => {
  await serve(containers[1]);
  const [host, other] = hosts;
  for (const command of [
    'ip address add 198.51.100.77/32 dev lo',
    `ip route replace ${containers[1].address}/32 via ${other.address} dev vx0 onlink src 198.51.100.77`,
  ]) {
    host.inNetwork(ingress.id, command);
  }
  inside = await lab.peer(host.pinOf(ingress.id));
  const at = (port: number) => inside.call('ask', { protocol: 'udp', host: containers[1].address, port });

  assert.equal(await at(80), `${containers[1].address} 198.51.100.77`);
  assert.equal(await at(81), 'silence');
});

check("nothing in a network reaches the host's loopback", async () => {
  const [host] = hosts;
  const [hostEnd = ''] = host.run('ip -4 -o address show dev', uplinkOf(host)).match(/169\.254[\d.]+/) ?? [];
  for (const command of [
    'sysctl -qw net.ipv4.conf.all.route_localnet=1',
    'ip address del 127.0.0.1/8 dev lo',
    `ip route add 127.0.0.1/32 via ${hostEnd}`,
  ]) {
    host.inNetwork(ingress.id, command);
  }

  // The answer would get lost on its way: what counts is that no program got the question.
  const received = () => Number(host.run('cat /proc/net/snmp').match(/Udp: (\d+)/)?.[1]);
  const before = received();
  assert.equal(await inside.call('ask', { protocol: 'udp', host: '127.0.0.1' }), 'silence');
  assert.equal(received(), before);
});

check('two addresses of a machine have the same port for different services', async () => {
  const [host] = hosts;
  host.run('ip address add 192.0.2.101/24 dev eth0');
  const at = (hostAddress: string, backend: Container) => aPort(PORT, [backend], { hostAddress });
  const published = [at('192.0.2.1', containers[0]), at('192.0.2.101', containers[1])];
  await host.apply('ingress', ingressState(lab, host, containers, published));

  const ask = (address: string) => far.call('ask', { protocol: 'tcp', host: address, port: PORT });
  assert.equal(await ask('192.0.2.1'), `${containers[0].address} ${FAR_CLIENT_ADDRESS}`);
  assert.equal(await ask('192.0.2.101'), `${containers[1].address} ${FAR_CLIENT_ADDRESS}`);
  assert.equal(
    await programs[0]!.call('ask', { protocol: 'tcp', host: '127.0.0.1', port: PORT }),
    'ECONNREFUSED',
  );
});

check('an ingress without IPv6 is reached by IPv6 all the same', async () => {
  await serve(containers[1]);
  const address = hosts[0].addIpv6();
  hosts[1].addIpv6();
  await hosts[0].overlay.call('repair', ingress.id);

  for (const [program, host] of [
    [programs[0]!, '::1'],
    [programs[1]!, address],
  ] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      const answer = await program.call<string>('ask', { protocol, host, port: PORT });
      assert.match(answer, new RegExp(`^${containers[1].address} 169\\.254\\.`));
    }
  }
  await publish(lab, containers, []);
  assert.equal(
    await programs[1]!.call('ask', { protocol: 'tcp', host: address, port: PORT }),
    'ECONNREFUSED',
  );
});
