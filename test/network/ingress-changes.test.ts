// Published ports while things change: backends that drain and vanish, processes that come and go, ports that somebody
// else has. Three machines, and a client beyond a router (overlay-lab.ts).

import assert from 'node:assert/strict';
import { eventually } from '../support/eventually.ts';
import {
  aPort,
  bothPorts,
  ensureNetworks,
  ingressState,
  portProblems,
  publish,
  publishedContainer,
} from './ingress-lab.ts';
import type { CallableProgram } from './lab.ts';
import {
  askWhileEnding,
  type Container,
  check,
  endFlows,
  FAR_CLIENT_ADDRESS,
  flowMoves,
  ingress,
  type OverlayHost,
  type OverlayLab,
  withLab,
} from './overlay-lab.ts';

const PORT = 8080;

interface Report {
  readonly requests: number;
  readonly failures: Record<string, number>;
  readonly servers: Record<string, number>;
}

let lab: OverlayLab;
let hosts: [OverlayHost, OverlayHost, OverlayHost];
/** Two on each machine. */
let all: Container[];
let far: CallableProgram;

withLab(3, async (opened) => {
  lab = opened;
  hosts = lab.hosts as typeof hosts;
  await ensureNetworks(lab);
  all = [];
  for (const [index, host] of hosts.entries()) {
    for (const last of [1, 2]) all.push(await publishedContainer(lab, host, (index + 1) * 10 + last));
  }
  far = await lab.farClient();
});

async function serve(backends: readonly Container[], existing = all): Promise<void> {
  await publish(lab, existing, bothPorts(PORT, backends));
}

function ask(protocol: 'tcp' | 'udp', host: string, port = PORT): Promise<string> {
  return far.call('ask', { protocol, host, port });
}

/** "SERVER CLIENT" when `backend` serves the client. */
function servedBy(backend: Container): string {
  return `${backend.address} ${FAR_CLIENT_ADDRESS}`;
}

function open(name: string, host: string): Promise<string> {
  return far.call('open', { name, host, port: PORT });
}

function send(name: string, text: string): Promise<string> {
  return far.call('send', { name, text });
}

check('a backend that drains keeps its connections and gets no new one, here and elsewhere', async () => {
  const [local, remote, other] = [all[0]!, all[2]!, all[4]!];
  for (const backend of [local, remote]) {
    await serve([backend]);
    assert.equal(await open(backend.address, hosts[0].address), servedBy(backend));
  }

  await serve([other]);

  for (const backend of [local, remote]) {
    assert.equal(await send(backend.address, 'still here'), 'still here');
  }
  for (let round = 0; round < 10; round++) assert.equal(await ask('tcp', hosts[0].address), servedBy(other));
});

check('the last backend that drains leaves a port that refuses, and connections that go on', async () => {
  await serve([all[3]!]);
  await open('last', hosts[0].address);

  await serve([]);

  assert.equal(await ask('tcp', hosts[0].address), 'ECONNREFUSED');
  assert.equal(await send('last', 'still here'), 'still here');
});

check('connections to a machine that vanished end, and UDP goes to another backend', async () => {
  const victim = await publishedContainer(lab, hosts[1], 50);
  await serve([victim], [...all, victim]);
  assert.equal(await open('vanishing', hosts[0].address), servedBy(victim));
  assert.equal(await far.call('askAgain', { host: hosts[0].address, port: PORT }), servedBy(victim));
  lab.wire('ip link set port2 down');

  await serve([all[4]!]);

  assert.match(await send('vanishing', 'anyone?'), /ECONNRESET|closed/);
  await flowMoves(far, { host: hosts[0].address, port: PORT }, (answer) =>
    assert.equal(answer, servedBy(all[4]!)),
  );
  lab.wire('ip link set port2 up');
  await victim.leave();
});

check('a flow that is ended gets the answer that is on its way, wherever its backend is', async () => {
  const target = { host: hosts[0].address, port: PORT };
  const other = all[4]!;
  for (const leaving of [all[0]!, all[2]!]) {
    // It is not waited for an answer for long, which a slow machine may miss.
    await eventually(async () => {
      await endFlows(lab, ingress.id, all);
      await serve([leaving]);
      assert.equal(await far.call('askAgain', target), servedBy(leaving));
      await serve([other]);
      assert.equal(await askWhileEnding(lab, ingress.id, leaving, far, target), servedBy(leaving));
      assert.equal(await far.call('askAgain', target), servedBy(other));
      return true;
    });
  }
});

check('a container that is gone is answered for by its own machine before others know', async () => {
  const victim = await publishedContainer(lab, hosts[1], 51);
  await serve([victim], [...all, victim]);
  assert.equal(await open('gone', hosts[0].address), servedBy(victim));
  // It says no good-bye.
  victim.run('ip link set eth1 down');

  const tracked = () => hosts[1].inNetwork(ingress.id, 'cat /proc/net/nf_conntrack').includes(victim.address);
  assert.ok(tracked());
  await hosts[1].overlay.call('detach', victim.endpoint);
  assert.ok(!tracked());

  assert.match(await send('gone', 'anyone?'), /ECONNRESET|closed/);
  await victim.peer.program.kill();
});

check('a machine that heard of a container late still lets it be reached', async () => {
  const [entry, late] = hosts;
  const newcomer = await publishedContainer(lab, late, 52);
  const existing = [...all, newcomer];
  const published = bothPorts(PORT, [newcomer]);
  await entry.apply(ingress.id, ingressState(lab, entry, existing, published));
  const answer = ask('tcp', entry.address);
  await eventually(() =>
    entry.inNetwork(ingress.id, 'cat /proc/net/nf_conntrack').includes(newcomer.address),
  );

  await late.apply(ingress.id, ingressState(lab, late, existing, published));

  assert.equal(await answer, servedBy(newcomer));
  await newcomer.leave();
});

check('backends come and go under load by every machine, and no connection fails', async () => {
  await serve(all);
  const clients = [far, await lab.peer(lab.wirePath), await lab.peer(hosts[2].path)];
  for (const [index, client] of clients.entries()) {
    await client.call('startLoad', { host: hosts[index]!.address, port: PORT });
  }
  const seed = Math.floor(Math.random() * 2 ** 31);
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >>> 16) % below;
  };

  for (let round = 0; round < 100; round++) {
    const backends = all.filter(() => random(2) === 0);
    await serve(backends.length === 0 ? [all[random(all.length)]!] : backends);
  }

  for (const client of clients) {
    const report = await client.call<Report>('stopLoad');
    assert.deepEqual(report.failures, {}, `seed ${seed}`);
    assert.ok(report.requests > 50, `${report.requests} requests`);
    assert.equal(Object.keys(report.servers).length, all.length);
  }
});

check(
  'a UDP client that keeps sending is served as soon as its port is, and let go when it is not',
  async () => {
    const [host] = hosts;
    const target = { host: host.address, port: 8053 };
    const published = (...backends: Container[]) => [aPort(8053, backends, { protocol: 'udp' })];
    assert.equal(await far.call('askAgain', target), 'silence');

    await publish(lab, all, published());
    assert.equal(await far.call('askAgain', target), 'silence');
    await publish(lab, all, published(all[2]!));
    assert.equal(await far.call('askAgain', target), servedBy(all[2]!));
    await publish(lab, all, []);
    const program = lab.program(host.path, 'peer.ts', ['serve', '8053']);
    assert.equal(await program.line(), 'ready');

    assert.equal(await far.call('askAgain', target), FAR_CLIENT_ADDRESS);
    await program.kill();
  },
);

check('a port that a process has is left to it and reported, and served when it is free', async () => {
  const [host] = hosts;
  const program = lab.program(host.path, 'peer.ts', ['serve', '9090']);
  await program.line();

  await publish(lab, all, bothPorts(9090, [all[2]!]));

  const reason = (protocol: string) => `port 9090/${protocol} is already in use on this node`;
  assert.deepEqual(
    await portProblems(host),
    ['tcp', 'udp'].map((protocol) => ({ protocol, port: 9090, reason: reason(protocol) })),
  );
  assert.deepEqual(await portProblems(hosts[1]), []);
  assert.equal(await ask('udp', host.address, 9090), FAR_CLIENT_ADDRESS);
  assert.equal(await ask('tcp', hosts[1].address, 9090), servedBy(all[2]!));

  await program.kill();
  assert.deepEqual(await host.overlay.call('repair', ingress.id), []);
  assert.deepEqual(await portProblems(host), []);
  assert.equal(await ask('udp', host.address, 9090), servedBy(all[2]!));
  assert.equal(await ask('tcp', host.address, 9090), servedBy(all[2]!));
});

check('no process gets a published port', async () => {
  await publish(lab, all, bothPorts(9090, []));

  assert.equal(await lab.program(hosts[0].path, 'peer.ts', ['serve', '9090']).line(), 'EADDRINUSE');
});

check('a port has one owner among the ingress and the node-local network: who came first', async () => {
  const [host] = hosts;
  const local = await lab.localNetwork(host);
  const hostMode = (id: string, publishedPort: number) => ({
    id,
    ports: [{ protocol: 'tcp', publishedPort, targetPort: 80, publishMode: 'host' }],
  });
  await local.call('attach', hostMode('first', 9191));

  await publish(lab, all, [aPort(9191, [all[2]!]), aPort(9192, [all[2]!])]);

  assert.deepEqual(await portProblems(host), [
    { protocol: 'tcp', port: 9191, reason: 'port 9191/tcp is already in use on this node' },
  ]);
  await assert.rejects(local.call('attach', hostMode('second', 9192)), { code: 'failed-precondition' });
  assert.equal(await ask('tcp', host.address, 9192), servedBy(all[2]!));
  await local.call('destroy');
});

check('a port of an interface, or of an address, is not one of the others', async () => {
  const [host] = hosts;
  host.run('ip address add 192.0.2.101/24 dev eth0');
  const program = await lab.peer(host.path);
  const local = (address: string, port: number) =>
    program.call<string>('ask', { protocol: 'tcp', host: address, port });

  await publish(lab, all, [
    aPort(9001, [all[2]!], { hostInterface: 'eth0' }),
    aPort(9002, [all[2]!], { hostAddress: '127.0.0.1' }),
    aPort(9003, [all[2]!], { hostInterface: 'eth7' }),
    aPort(9004, [all[2]!], { hostAddress: '192.0.2.77' }),
  ]);

  for (const address of [host.address, '192.0.2.101']) {
    assert.equal(await ask('tcp', address, 9001), servedBy(all[2]!));
    assert.equal(await ask('tcp', address, 9002), 'ECONNREFUSED');
  }
  assert.equal(await local('127.0.0.1', 9001), 'ECONNREFUSED');
  assert.match(await local('127.0.0.1', 9002), /^10\.0\.0\.21 /);
  assert.deepEqual(
    (await portProblems(host)).map(({ port, reason }) => `${port}: ${reason}`),
    ['9003: no interface eth7 of this node has an address', '9004: no interface of this node has 192.0.2.77'],
  );
  host.run('ip address del 192.0.2.101/24 dev eth0');
});

check('a thousand ports are served, and let go', async () => {
  const published = Array.from({ length: 1000 }, (_, index) => aPort(20_000 + index, all));

  await publish(lab, all, published);

  for (const port of [20_000, 20_500, 20_999]) {
    assert.match(await ask('tcp', hosts[1].address, port), new RegExp(` ${FAR_CLIENT_ADDRESS}$`));
  }
  assert.deepEqual(await hosts[1].overlay.call('audit', ingress.id), []);
  await publish(lab, all, []);
  assert.doesNotMatch(hosts[1].run('ss -tuan'), /:20\d\d\d /);
});

check('killing the processes interrupts nothing, and the next ones take over', async () => {
  await serve(all.slice(2, 4));
  await open('kept', hosts[0].address);
  const tables = () =>
    hosts.map((host) => host.run('nft list ruleset') + host.inNetwork(ingress.id, 'nft list ruleset'));
  const before = tables();

  for (const host of hosts) await host.overlay.program.kill();
  assert.equal(await send('kept', 'alone'), 'alone');
  assert.match(await ask('tcp', hosts[0].address), /^10\.0\.0\.2/);
  for (const host of hosts) await host.restart();
  await ensureNetworks(lab);

  assert.equal(await send('kept', 'adopted'), 'adopted');
  assert.deepEqual(tables().map(sorted), before.map(sorted));
  for (const host of hosts) assert.deepEqual(await host.overlay.call('audit', ingress.id), []);
  assert.equal(await lab.program(hosts[0].path, 'peer.ts', ['serve', String(PORT)]).line(), 'EADDRINUSE');
  await serve(all.slice(2, 4));
  assert.deepEqual(tables().map(sorted), before.map(sorted));
  assert.equal(await send('kept', 'applied'), 'applied');
});

/** Without regard to the order in which the kernel lists elements. */
function sorted(listing: string): string {
  return listing
    .split(/[\n,{}]+/)
    .map((line) => line.trim())
    .sort()
    .join('\n');
}

check('killed at any step of a change, the next process makes it', async () => {
  const [host] = hosts;
  let steps = 0;
  for (let isDone = false; !isDone; steps++) {
    await host.apply(ingress.id, ingressState(lab, host, all, bothPorts(PORT, [all[0]!])));
    await host.overlay.call('dieAfter', steps);
    const state = ingressState(lab, host, all, [...bothPorts(PORT, [all[2]!]), aPort(9999, all)]);
    isDone = await host.apply(ingress.id, state).then(
      () => true,
      () => false,
    );
    await host.restart();
    await ensureNetworks(lab);
    await host.apply(ingress.id, state);
    assert.deepEqual(await host.overlay.call('audit', ingress.id), []);
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.equal(await ask(protocol, host.address), servedBy(all[2]!));
    }
  }
  assert.ok(steps > 3, `${steps} steps`);
});

check('removing the ingress ends its ports and leaves the rest', async () => {
  const [host] = hosts;
  await assert.rejects(host.ensure({ ...ingress, id: 'second', vni: 77 }), { code: 'failed-precondition' });
  await assert.rejects(host.apply('net1', { published: bothPorts(PORT, []) }), { code: 'invalid-argument' });

  await host.overlay.call('remove', ingress.id);

  assert.doesNotMatch(host.run('nft list ruleset'), new RegExp(` ${PORT} `));
  const program = lab.program(host.path, 'peer.ts', ['serve', String(PORT)]);
  assert.equal(await program.line(), 'ready');
  assert.equal(await ask('tcp', host.address), FAR_CLIENT_ADDRESS);
});
