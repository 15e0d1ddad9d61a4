// Virtual addresses of services: balancing, draining, cutting, hairpin. Three machines (overlay-lab.ts).

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import type { CallableProgram } from './lab.ts';
import {
  askWhileEnding,
  type Container,
  check,
  closed,
  endFlows,
  flowMoves,
  net,
  type OverlayLab,
  WIRE_ADDRESS,
  withLab,
} from './overlay-lab.ts';

const VIP = '10.0.1.2';

interface Report {
  readonly requests: number;
  readonly failures: Record<string, number>;
  readonly servers: Record<string, number>;
}

let lab: OverlayLab;
/** Two on each of three hosts. */
let all: Container[];
let client: Container;
/** Beyond the hosts. */
let outside: CallableProgram;

withLab(3, async (opened) => {
  lab = opened;
  all = [];
  for (const [index, host] of lab.hosts.entries()) {
    await host.ensure(net);
    for (const last of [1, 2])
      all.push(await lab.container(host, net.id, `10.0.1.${(index + 1) * 10 + last}`));
  }
  client = all[0]!;
});

/** These containers exist, and these of them get the service's new connections. */
async function serve(backends: readonly Container[], existing = all): Promise<void> {
  const services = [{ vip: VIP, backends: backends.map(({ address }) => address) }];
  await lab.connect(net.id, existing, { services });
}

async function serversSeen(from: Container, protocol: 'tcp' | 'udp', times: number): Promise<Set<string>> {
  const seen = new Set<string>();
  for (let round = 0; round < times; round++) seen.add((await from.ask(protocol, VIP)).split(' ')[0]!);
  return seen;
}

for (const protocol of ['tcp', 'udp'] as const) {
  check(
    `everybody reaches everybody, directly and by the virtual address, as themselves (${protocol})`,
    async () => {
      for (const from of all) {
        for (const to of all) {
          assert.equal(await from.ask(protocol, to.address), `${to.address} ${from.address}`);
          await serve([to]);
          const client = from === to ? net.subnets[0]!.gateway : from.address;
          assert.equal(await from.ask(protocol, VIP), `${to.address} ${client}`);
        }
      }
    },
  );

  check(`new connections go to all backends (${protocol})`, async () => {
    await serve(all);

    assert.deepEqual(await serversSeen(client, protocol, 80), new Set(all.map(({ address }) => address)));
  });
}

check('with affinity, connections of a client go to one backend for as long as it stays', async () => {
  const affine = async (backends: readonly Container[]): Promise<void> => {
    const service = { vip: VIP, backends: backends.map(({ address }) => address) };
    await lab.connect(net.id, all, { services: [{ ...service, affinity: 'client-address' }] });
  };
  const serverOf = async (from: Container): Promise<string> => {
    const seen = new Set([...(await serversSeen(from, 'tcp', 8)), ...(await serversSeen(from, 'udp', 8))]);
    assert.equal(seen.size, 1);
    return [...seen][0]!;
  };
  await affine(all);
  const before = await Promise.all(all.map(serverOf));
  assert.ok(new Set(before).size > 1);
  const [gone] = before;

  await affine(all.filter(({ address }) => address !== gone));

  for (const [index, from] of all.entries()) {
    const server = await serverOf(from);
    if (before[index] === gone) assert.notEqual(server, gone);
    else assert.equal(server, before[index]);
  }
});

check('backends get new connections by their weights', async () => {
  const [light, heavy] = [all[2]!, all[4]!];
  const services = [{ vip: VIP, backends: [light.address, heavy.address], weights: [1, 9] }];
  await lab.connect(net.id, all, { services });

  let ofLight = 0;
  for (let round = 0; round < 150; round++) {
    if ((await client.ask('tcp', VIP)).startsWith(light.address)) ofLight++;
  }

  // Outside of this once in more than 10 million runs.
  assert.ok(ofLight >= 1 && ofLight <= 40, `${ofLight} of 150`);
  await assert.rejects(lab.connect(net.id, all, { services: [{ ...services[0]!, weights: [0, 1] }] }), {
    message: 'services.weights: 0 is not 1 to 1000',
  });
});

check('the virtual address answers an echo request', async () => {
  await serve(all.slice(2));

  assert.match(client.run(process.execPath, join(import.meta.dirname, 'ping.ts'), VIP), /^echo reply/);
});

check('a service without backends refuses at once, and its connections go on', async () => {
  await serve([all[3]!]);
  await client.peer.call('open', { name: 'last', host: VIP });

  await serve([]);

  assert.equal(await client.ask('tcp', VIP), 'ECONNREFUSED');
  assert.equal(await client.peer.call('send', { name: 'last', text: 'still here' }), 'still here');
});

check('a service that is removed is not reached any more', async () => {
  await lab.connect(net.id, all);

  assert.match(await client.ask('tcp', VIP), /EHOSTUNREACH|ENETUNREACH/);
});

check('a backend that drains keeps its connections and gets no new one', async () => {
  await serve([all[2]!, all[3]!]);
  const names: string[] = [];
  for (let index = 0; index < 12; index++) {
    const greeting = await client.peer.call<string>('open', { name: `d${index}`, host: VIP });
    if (greeting.startsWith(all[2]!.address)) names.push(`d${index}`);
  }
  assert.ok(names.length > 0);

  await serve([all[3]!]);

  assert.deepEqual(await serversSeen(client, 'tcp', 20), new Set([all[3]!.address]));
  for (const name of names) {
    assert.equal(await client.peer.call('send', { name, text: 'still here' }), 'still here');
  }
});

check(
  'a flow that is ended gets the answer that is on its way, and then goes to another backend',
  async () => {
    const [, near, far] = all as [Container, Container, Container];
    const ask = (): Promise<string> => client.peer.call('askAgain', { host: VIP });
    for (const leaving of [near, far]) {
      const other = leaving === near ? far : near;
      // It is not waited for an answer for long, which a slow machine may miss.
      await eventually(async () => {
        await endFlows(lab, net.id, all);
        await serve([leaving]);
        assert.match(await ask(), new RegExp(`^${leaving.address} `));
        await serve([other]);
        const answer = await askWhileEnding(lab, net.id, leaving, client.peer, { host: VIP });
        assert.match(answer, new RegExp(`^${leaving.address} `));
        assert.match(await ask(), new RegExp(`^${other.address} `));
        return true;
      });
    }
    await endFlows(lab, net.id, all);
  },
);

check('flows to several backends end together, and those to others go on', async () => {
  const [first, second, third, near, far, bystander] = all as [
    ...[Container, Container, Container],
    ...[Container, Container, Container],
  ];
  const asks = (from: Container): Promise<string> => from.peer.call('askAgain', { host: VIP });
  for (const [from, to] of [
    [first, near],
    [second, far],
    [third, bystander],
  ] as const) {
    await serve([to]);
    assert.match(await asks(from), new RegExp(`^${to.address} `));
  }
  await serve([first]);

  await endFlows(lab, net.id, [near, far]);

  for (const from of [first, second]) assert.match(await asks(from), new RegExp(`^${first.address} `));
  assert.match(await asks(third), new RegExp(`^${bystander.address} `));
  await endFlows(lab, net.id, all);
});

check('connections to a backend that vanished end, by either address, and UDP goes to another', async () => {
  const victim = await lab.container(lab.hosts[1]!, net.id, '10.0.1.50');
  await serve([victim], [...all, victim]);
  await client.peer.call('open', { name: 'by-vip', host: VIP });
  await client.peer.call('open', { name: 'direct', host: victim.address });
  assert.match(await client.peer.call('askAgain', { host: VIP }), /^10\.0\.1\.50 /);
  // Nothing tells the client: its node is gone with all that was on it.
  lab.wire('ip link set port2 down');

  await serve([all[4]!]);

  for (const name of ['by-vip', 'direct']) {
    assert.match(await client.peer.call('send', { name, text: 'anyone?' }), /ECONNRESET|closed/);
  }
  await flowMoves(client.peer, { host: VIP }, (answer) =>
    assert.match(answer, new RegExp(`^${all[4]!.address} `)),
  );
  lab.wire('ip link set port2 up');
  await victim.leave();
});

check('backends come and go under load, and no connection fails', async () => {
  await serve(all);
  const clients = [all[0]!, all[2]!, all[5]!];
  for (const container of clients) await container.peer.call('startLoad', { host: VIP });
  const seed = Math.floor(Math.random() * 2 ** 31);
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >>> 16) % below;
  };

  for (let round = 0; round < 150; round++) {
    const backends = all.filter(() => random(2) === 0);
    await serve(backends.length === 0 ? [all[random(all.length)]!] : backends);
  }

  for (const container of clients) {
    const report = await container.peer.call<Report>('stopLoad');
    assert.deepEqual(report.failures, {}, `seed ${seed}`);
    assert.ok(report.requests > 50, `${report.requests} requests`);
    assert.equal(Object.keys(report.servers).length, all.length);
  }
});

check('a container is replaced by another under load, and no connection fails', async () => {
  await serve(all);
  await client.peer.call('startLoad', { host: VIP });
  let current = await lab.container(lab.hosts[2]!, net.id, '10.0.1.60');

  for (let round = 0; round < 6; round++) {
    const next = await lab.container(lab.hosts[round % 3]!, net.id, `10.0.1.${61 + round}`);
    await serve([...all, current, next], [...all, current, next]);
    // Out of the rotation first, then gone.
    await serve([...all, next], [...all, current, next]);
    // A request that was on its way to it has ended by then.
    const { requests } = await client.peer.call<Report>('loadReport');
    await eventually(async () => (await client.peer.call<Report>('loadReport')).requests > requests + 1);
    await current.leave();
    await serve([...all, next], [...all, next]);
    current = next;
  }

  const report = await client.peer.call<Report>('stopLoad');
  assert.deepEqual(report.failures, {});
  await current.leave();
});

check('containers reach the outside as their host, with whichever protocol', async () => {
  outside = await lab.peer(lab.wirePath);

  for (const protocol of ['tcp', 'udp'] as const) {
    for (const from of [all[0]!, all[5]!]) {
      assert.match(await from.ask(protocol, WIRE_ADDRESS), new RegExp(` ${from.host.address}$`));
    }
  }
});

check('nobody outside gets into a network by its way out', async () => {
  const host = lab.hosts[0]!;
  const [link = ''] = host.run('ip -4 -o address').match(/169\.254\.\d+\.\d+/) ?? [];
  const inside = link.replace(/\d+$/, (last) => String(Number(last) + 1));
  lab.wire(`ip route add ${inside}/32 via ${host.address}`);
  lab.wire(`ip route add ${client.address}/32 via ${host.address}`);
  host.run(`ip route add ${client.address}/32 via ${inside}`);

  for (const target of [inside, client.address]) {
    assert.equal(await outside.call('ask', { protocol: 'udp', host: target }), 'silence');
    assert.equal(await outside.call('ask', { protocol: 'tcp', host: target }), 'silence');
  }
  host.run(`ip route del ${client.address}/32`);
});

check('an internal network has no way out, and works within', async () => {
  const inner: Container[] = [];
  for (const [index, host] of lab.hosts.entries()) {
    await host.ensure(closed);
    inner.push(await lab.container(host, closed.id, `10.0.2.${10 + index}`));
  }
  await lab.connect(closed.id, inner, {
    services: [{ vip: '10.0.2.2', backends: [inner[2]!.address] }],
  });
  const [from, , to] = inner as [Container, Container, Container];

  assert.equal(await from.ask('tcp', to.address), `${to.address} ${from.address}`);
  assert.equal(await from.ask('tcp', '10.0.2.2'), `${to.address} ${from.address}`);
  assert.match(await from.ask('tcp', WIRE_ADDRESS), /ENETUNREACH|EHOSTUNREACH/);
  assert.match(await from.ask('tcp', client.address), /ENETUNREACH|EHOSTUNREACH/);
});

check('a container of two networks reaches both, and the outside over the one that leads there', async () => {
  const host = lab.hosts[1]!;
  const both = await lab.container(host, closed.id, '10.0.2.40', { id: 'inner', isDefaultRoute: false });
  const outer = host.endpoint(net.id, '10.0.1.70', {
    id: 'outer',
    namespacePath: both.endpoint.namespacePath,
  });
  await host.overlay.call('attach', outer);

  assert.equal(await both.ask('tcp', all[2]!.address), `${all[2]!.address} 10.0.1.70`);
  assert.equal(await both.ask('tcp', '10.0.2.11'), `10.0.2.11 10.0.2.40`);
  assert.match(await both.ask('tcp', WIRE_ADDRESS), new RegExp(` ${host.address}$`));
});
