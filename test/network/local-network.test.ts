// The node-local network in the kernel: real namespaces, real traffic, a machine of its own (lab.ts).

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { createNamespace, removeNamespace } from '../../agent/linux/namespace.ts';
import type { Endpoint } from '../../agent/network/network.ts';
import { emptyPortConfig, type PortConfig, type PortProtocol } from '../../core/generated/objects.ts';
import { eventually, FAR_ADDRESS, HOST_ADDRESS, Lab, type NetworkProcess } from './lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root to make network namespaces';

function check(name: string, run: (context: TestContext) => Promise<void>): void {
  test(name, { skip }, run);
}

function aPort(targetPort: number, publishedPort: number, protocol: PortProtocol = 'tcp'): PortConfig {
  return { ...emptyPortConfig, protocol, targetPort, publishedPort, publishMode: 'host' };
}

function isLinkLocal(address: string): boolean {
  return address.startsWith('169.254.');
}

function publishedPortsOf(endpoints: readonly Endpoint[]): number {
  return endpoints.filter(({ id }) => id !== 'leaving').flatMap(({ ports }) => ports).length;
}

let lab: Lab;
let network: NetworkProcess;
let machineBefore: ReturnType<Lab['traces']>;
let web: Endpoint;
let other: Endpoint;

before(async () => {
  if (skip) return;
  lab = new Lab();
  machineBefore = lab.traces();
  network = await lab.openNetwork();
  web = await network.attach({ id: 'web', ports: [aPort(80, 8080), aPort(80, 8080, 'udp')] });
  other = await network.attach({ id: 'other', ports: [] });
  await lab.serve(web.namespacePath, 80);
  await lab.serve(lab.outsidePath, 7000, FAR_ADDRESS);
});

after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

for (const protocol of ['tcp', 'udp'] as const) {
  check(`containers reach the outside as the host (${protocol})`, async () => {
    assert.equal(await lab.ask(other.namespacePath, protocol, FAR_ADDRESS, 7000), HOST_ADDRESS);
  });

  check(`containers reach each other with their own addresses (${protocol})`, async () => {
    assert.equal(await lab.ask(other.namespacePath, protocol, web.address, 80), other.address);
  });

  check(`a published port shows the container its true client (${protocol})`, async () => {
    assert.equal(await lab.ask(lab.outsidePath, protocol, HOST_ADDRESS, 8080), '198.51.100.1');
  });

  check(`a published port answers on the host's own address and on 127.0.0.1 (${protocol})`, async () => {
    assert.equal(await lab.ask(lab.hostPath, protocol, HOST_ADDRESS, 8080), HOST_ADDRESS);
    assert.match(await lab.ask(lab.hostPath, protocol, '127.0.0.1', 8080), /^169\.254\./);
  });

  check(`containers reach ports published on their own node (${protocol})`, async () => {
    assert.match(await lab.ask(other.namespacePath, protocol, HOST_ADDRESS, 8080), /^169\.254\./);
    assert.match(await lab.ask(web.namespacePath, protocol, HOST_ADDRESS, 8080), /^169\.254\./);
  });
}

check('an address that no container has is unreachable', async () => {
  assert.match(await lab.ask(other.namespacePath, 'tcp', '10.186.200.200', 80), /EHOSTUNREACH|ENETUNREACH/);
});

check('nobody outside gets into the network except by a published port', async () => {
  const [link = ''] = lab.host('ip -4 address show dev tsu-lab').match(/169\.254\.\d+\.\d+/) ?? [];
  const inside = link.replace(/\d+$/, (last) => String(Number(last) + 1));
  lab.outside(`ip route add ${inside}/32 via ${HOST_ADDRESS}`);

  assert.equal(await lab.ask(lab.outsidePath, 'udp', inside, 8080), 'silence');
});

check('attaching again gives the same endpoint', async () => {
  assert.deepEqual(await network.attach({ id: 'web', ports: [] }), web);
});

check('a published port that a process or an endpoint uses is refused by name', async () => {
  await lab.serve(lab.hostPath, 9090);

  for (const [port, protocol] of [
    [8080, 'tcp'],
    [8080, 'udp'],
    [9090, 'tcp'],
    [9090, 'udp'],
  ] as const) {
    await assert.rejects(network.attach({ id: 'late', ports: [aPort(80, port, protocol)] }), {
      code: 'failed-precondition',
      message: `port ${port}/${protocol} is already in use on this node`,
    });
  }
  assert.equal((await network.call<Endpoint[]>('list')).length, 2);
});

check('no process of the host gets a published port', async () => {
  await assert.rejects(lab.serve(lab.hostPath, 8080));
});

check('a port can be published while connections of its former user linger', async () => {
  const server = await lab.serve(lab.hostPath, 9191);
  const client = await lab.connect(lab.outsidePath, 'tcp', HOST_ADDRESS, 9191);
  await client.line();
  await server.kill();
  assert.equal(await client.line(), 'closed');
  assert.match(lab.host('ss -tan'), /TIME-WAIT.*:9191/);

  await network.attach({ id: 'heir', ports: [aPort(80, 9191)] });
  await network.call('detach', 'heir');
});

check('published port 0 becomes a free port of the ephemeral range', async () => {
  const endpoint = await network.attach({ id: 'any', ports: [aPort(80, 0), aPort(80, 0, 'udp')] });
  await lab.serve(endpoint.namespacePath, 80);

  const [low = 0, high = 0] = lab.host('sysctl -n net.ipv4.ip_local_port_range').split('\t').map(Number);
  for (const { protocol, publishedPort } of endpoint.ports) {
    assert.ok(publishedPort >= low && publishedPort <= high);
    assert.equal(
      await lab.ask(lab.outsidePath, protocol as 'tcp', HOST_ADDRESS, publishedPort),
      '198.51.100.1',
    );
  }
});

check('a drained endpoint keeps its connections and gets no new one', async () => {
  const endpoint = await network.attach({ id: 'leaving', ports: [aPort(80, 8081)] });
  await lab.serve(endpoint.namespacePath, 80);
  const client = await lab.connect(lab.outsidePath, 'tcp', HOST_ADDRESS, 8081);
  assert.equal(await client.line(), '198.51.100.1');

  await network.call('drain', 'leaving');

  client.send('still here');
  assert.equal(await client.line(), 'still here');
  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8081), 'ECONNREFUSED');
});

check('a UDP client that never pauses reaches the successor of a detached endpoint', async () => {
  const first = await network.attach({ id: 'first', ports: [aPort(53, 8053, 'udp')] });
  const firstServer = await lab.serve(first.namespacePath, 53);
  const client = await lab.connect(lab.outsidePath, 'udp', HOST_ADDRESS, 8053);
  client.send('one');
  assert.equal(await client.line(), '198.51.100.1 one');

  await firstServer.kill();
  await network.call('detach', 'first');
  const second = await network.attach({ id: 'second', ports: [aPort(53, 8053, 'udp')] });
  await lab.serve(second.namespacePath, 53);

  client.send('two');
  assert.equal(await client.line(), '198.51.100.1 two');
  assert.notEqual(second.address, first.address);
});

check('killing the process interrupts nothing, and the next one adopts the endpoints', async () => {
  const listed = await network.call<Endpoint[]>('list');
  const client = await lab.connect(lab.outsidePath, 'tcp', HOST_ADDRESS, 8080);
  assert.equal(await client.line(), '198.51.100.1');

  await network.program.kill();
  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8080), '198.51.100.1');
  network = await lab.openNetwork();

  client.send('still here');
  assert.equal(await client.line(), 'still here');
  const byId = (one: Endpoint, two: Endpoint): number => one.id.localeCompare(two.id);
  assert.deepEqual((await network.call<Endpoint[]>('list')).sort(byId), listed.sort(byId));
  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8080), '198.51.100.1');
  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8081), 'ECONNREFUSED');
  await assert.rejects(lab.serve(lab.hostPath, 8080));
});

check('killed at any moment, it leaves nothing half-made behind', async () => {
  const kept = (await network.call<Endpoint[]>('list')).map(({ id }) => id);
  for (const endpointsBeforeKill of [1, 3, 10, 40, 41]) {
    network.program.send(JSON.stringify({ method: 'measure', argument: 100 }));
    await eventually(() => lab.pins().length > kept.length + endpointsBeforeKill);
    await network.program.kill();

    network = await lab.openNetwork();

    const endpoints = await network.call<Endpoint[]>('list');
    assert.deepEqual(lab.pins().sort(), [...endpoints.map(({ id }) => id), 'n-local'].sort());
    assert.equal(lab.publishedPorts(), publishedPortsOf(endpoints));
    for (const { id } of endpoints) if (!kept.includes(id)) await network.call('detach', id);
  }
  await eventually(() => lab.endpointLinks().length === kept.length);
});

check('what a crash can leave is cleaned up when the network is opened', async () => {
  await network.attach({ id: 'unpinned', ports: [aPort(80, 8083)] });
  await network.program.kill();
  removeNamespace(join(lab.pinsDir, 'unpinned'));
  createNamespace(join(lab.pinsDir, 'without-record'), () => undefined);
  writeFileSync(join(lab.pinsDir, 'never-mounted'), '');

  network = await lab.openNetwork();

  const endpoints = await network.call<Endpoint[]>('list');
  assert.deepEqual(lab.pins().sort(), [...endpoints.map(({ id }) => id), 'n-local'].sort());
  assert.ok(!endpoints.some(({ id }) => id === 'unpinned'));
  const again = await network.attach({ id: 'unpinned', ports: [aPort(80, 8083)] });
  await lab.serve(again.namespacePath, 80);
  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8083), '198.51.100.1');
});

check('a network is destroyed by a process that never opened it, next to one that stays', async () => {
  const neighbour = new Lab();
  try {
    const options = ['neighbour', neighbour.runDir, neighbour.stateDir] as const;
    const second = await lab.openNetwork(...options);
    const endpoint = await second.attach({ id: 'web', ports: [aPort(80, 8084)] });
    await lab.serve(endpoint.namespacePath, 80);
    assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8084), '198.51.100.1');
    assert.equal(await lab.ask(other.namespacePath, 'tcp', HOST_ADDRESS, 8084).then(isLinkLocal), true);
    await second.program.kill();

    await network.call('destroyElsewhere', options);

    assert.match(lab.host('ip -o link'), /tsu-lab/);
    assert.doesNotMatch(lab.host('ip -o link') + lab.host('nft list tables'), /neighbour/);
    assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8080), '198.51.100.1');
  } finally {
    await neighbour[Symbol.asyncDispose]();
  }
});

check('tables that an administrator flushed are written anew with the next change', async () => {
  lab.host('nft flush ruleset');

  await network.attach({ id: 'repair', ports: [aPort(80, 8082)] });

  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_ADDRESS, 8080), '198.51.100.1');
});

check('many endpoints come and go', async (context: TestContext) => {
  const figures = await network.call<{ attachMs: number; detachMs: number }>('measure', 200);
  context.diagnostic(`attach ${figures.attachMs.toFixed(2)} ms, detach ${figures.detachMs.toFixed(2)} ms`);
});

check('destroying it leaves the machine as it was', async () => {
  await network.program.kill();
  network = await lab.openNetwork();

  await network.call('destroy');

  assert.deepEqual(lab.traces(), machineBefore);
});
