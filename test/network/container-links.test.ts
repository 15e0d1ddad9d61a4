// Containers with several links: whatever comes in by one of them is answered by that one (overlay-lab.ts).

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Endpoint } from '../../agent/network/network.ts';
import { bothPorts, ensureNetworks, publish, publishedContainer } from './ingress-lab.ts';
import type { CallableProgram } from './lab.ts';
import {
  Container,
  check,
  FAR_CLIENT_ADDRESS,
  ingress,
  type OverlayHost,
  type OverlayLab,
  withLab,
} from './overlay-lab.ts';

const PORT = 8080;
const HOST_PORT = 7070;
/** Not that of the ingress: a UDP server that both lead to could not tell the one from the other. */
const HOST_TARGET = 81;

let lab: OverlayLab;
let host: OverlayHost;
let other: OverlayHost;
let local: CallableProgram;
let far: CallableProgram;
/** Of its own network, by which it gets out, of the ingress, and of the node-local network. */
let three: Container;

withLab(2, async (opened) => {
  lab = opened;
  [host, other] = lab.hosts as [OverlayHost, OverlayHost];
  await ensureNetworks(lab);
  local = await lab.localNetwork(host);
  far = await lab.farClient();
  // What it listens to elsewhere tells that it is not the container.
  await lab.peer(host.path);
  await lab.peer(other.path);
  three = await publishedContainer(lab, host, 10);
  await attach('three', three, HOST_PORT, false);
  await publish(lab, [three], bothPorts(PORT, [three]));
});

function attach(id: string, container: Container, port: number, isDefaultRoute: boolean): Promise<Endpoint> {
  const ports = (['tcp', 'udp'] as const).map((protocol) => ({
    protocol,
    targetPort: HOST_TARGET,
    publishedPort: port,
    publishMode: 'host',
  }));
  const { namespacePath } = container.endpoint;
  return local.call('attach', { id, ports, namespacePath, isDefaultRoute });
}

async function isReached(container: Container, address: string, port: number): Promise<void> {
  for (const protocol of ['tcp', 'udp'] as const) {
    const answer = await far.call<string>('ask', { protocol, host: address, port });
    assert.equal(answer.split(' ')[1], FAR_CLIENT_ADDRESS, `${protocol} ${address}:${port}: ${answer}`);
    if (protocol === 'udp') assert.equal(answer.split(' ')[0], container.address);
  }
}

async function getsOut(container: Container): Promise<void> {
  for (const protocol of ['tcp', 'udp'] as const) {
    assert.equal(await container.ask(protocol, other.address), `${other.address} ${host.address}`);
  }
}

check('a container is reached by its host-mode port and by the ingress, and gets out', async () => {
  await isReached(three, host.address, HOST_PORT);
  await isReached(three, host.address, PORT);
  await isReached(three, other.address, PORT);
  await getsOut(three);
  assert.match(three.run('ip route show default'), /dev eth0/);
});

check('it is reached with every source checked strictly', async () => {
  three.run('sysctl -qw net.ipv4.conf.all.rp_filter=1');

  await isReached(three, host.address, HOST_PORT);
  await isReached(three, other.address, PORT);
});

check('the node-local network is the way out of a container that has no other', async () => {
  const endpoint = host.endpoint(ingress.id, '10.0.0.20', { id: 'two', isDefaultRoute: false });
  await host.overlay.call('attach', endpoint);
  const two = new Container(host, endpoint, await lab.peer(endpoint.namespacePath, endpoint.address));
  await attach('two', two, HOST_PORT + 1, true);
  await publish(lab, [three, two], bothPorts(PORT, [two]));

  assert.match(two.run('ip route show default'), /dev eth1/);
  await isReached(two, host.address, HOST_PORT + 1);
  await isReached(two, other.address, PORT);
  await getsOut(two);

  await local.call('detach', 'two');
  await isReached(two, other.address, PORT);
  assert.doesNotMatch(two.run('ip link show eth1'), /LOWER_UP/);
  await two.leave();
});

check('a namespace that is not there is refused, and an endpoint that is there stays', async () => {
  const nowhere = host.endpoint(ingress.id, '10.0.0.30');
  const container = new Container(host, nowhere, far);

  await assert.rejects(attach('late', container, 7099, false), { code: 'not-found' });
  const again = await attach('three', three, HOST_PORT, false);
  assert.equal(again.namespacePath, three.endpoint.namespacePath);
});

check('the next process takes over further links, and removes those that are half made', async () => {
  const half = await publishedContainer(lab, host, 40);
  await attach('half', half, 7098, false);
  const listed = await local.call<Endpoint[]>('list');
  await local.program.kill();
  rmSync(join(host.runDir, 'local', 'endpoints', 'half.json'));

  local = await lab.localNetwork(host);

  assert.deepEqual(
    await local.call('list'),
    listed.filter(({ id }) => id !== 'half'),
  );
  await isReached(three, host.address, HOST_PORT);
  assert.doesNotMatch(half.run('ip -o link'), /eth2/);
  await attach('half', half, 7098, false);
  await isReached(half, host.address, 7098);
  await half.leave();
});

check('destroying the node-local network leaves the container its other links', async () => {
  await local.call('destroy');

  assert.doesNotMatch(host.run('ip -o link'), /tsu-locallab/);
  await publish(lab, [three], bothPorts(PORT, [three]));
  await isReached(three, other.address, PORT);
});
