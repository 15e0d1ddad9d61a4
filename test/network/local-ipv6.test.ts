// The node-local network on a machine that has IPv6: as by IPv4, containers are reached by published ports, see their true
// clients, and get out.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Endpoint } from '../../agent/network/network.ts';
import { emptyPortConfig, type PortConfig, type PortProtocol } from '../../core/generated/objects.ts';
import {
  FAR_IPV6_ADDRESS,
  HOST_ADDRESS,
  HOST_IPV6_ADDRESS,
  Lab,
  type NetworkProcess,
  OUTSIDE_IPV6_ADDRESS,
  run,
} from './lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root to make network namespaces';
const protocols = ['tcp', 'udp'] as const;

function check(name: string, run: () => Promise<void>): void {
  test(name, { skip }, run);
}

function aPort(targetPort: number, publishedPort: number, protocol: PortProtocol): PortConfig {
  return { ...emptyPortConfig, protocol, targetPort, publishedPort, publishMode: 'host' };
}

let lab: Lab;
let network: NetworkProcess;
let machineBefore: ReturnType<Lab['traces']>;
let web: Endpoint;
let other: Endpoint;

before(async () => {
  if (skip) return;
  lab = new Lab();
  lab.addIpv6();
  machineBefore = lab.traces();
  network = await lab.openNetwork();
  web = await network.attach({ id: 'web', ports: protocols.map((protocol) => aPort(80, 8080, protocol)) });
  other = await network.attach({ id: 'other', ports: [] });
  await lab.serve(web.namespacePath, 80, '::');
  await lab.serve(lab.outsidePath, 7000, FAR_IPV6_ADDRESS);
});

after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

for (const protocol of protocols) {
  check(`a published port shows the container its true client (${protocol})`, async () => {
    assert.equal(await lab.ask(lab.outsidePath, protocol, HOST_IPV6_ADDRESS, 8080), OUTSIDE_IPV6_ADDRESS);
    assert.equal(await lab.ask(lab.outsidePath, protocol, HOST_ADDRESS, 8080), '::ffff:198.51.100.1');
  });

  check(`a published port answers on the host's own address and on ::1 (${protocol})`, async () => {
    assert.equal(await lab.ask(lab.hostPath, protocol, HOST_IPV6_ADDRESS, 8080), HOST_IPV6_ADDRESS);
    assert.match(await lab.ask(lab.hostPath, protocol, '::1', 8080), /^::ffff:169\.254\./);
  });

  check(`containers reach each other and ports published on their own node (${protocol})`, async () => {
    assert.equal(await lab.ask(other.namespacePath, protocol, web.ipv6Address ?? '', 80), other.ipv6Address);
    for (const from of [other, web])
      assert.match(await lab.ask(from.namespacePath, protocol, HOST_IPV6_ADDRESS, 8080), /^fd74:/);
  });

  check(`containers reach the outside as the host (${protocol})`, async () => {
    assert.equal(await lab.ask(other.namespacePath, protocol, FAR_IPV6_ADDRESS, 7000), HOST_IPV6_ADDRESS);
  });
}

check('an address that no container has is unreachable', async () => {
  const nobody = (web.ipv6Address ?? '').replace(/:[^:]+$/, ':fefe');
  assert.match(await lab.ask(other.namespacePath, 'tcp', nobody, 80), /EHOSTUNREACH|ENETUNREACH/);
});

check('nobody outside gets into the network except by a published port', async () => {
  const [link = ''] = lab.host('ip -6 address show dev tsu-lab').match(/fd74:[\da-f:]+/) ?? [];
  const inside = link.replace(/[\da-f]$/, (last) => (Number.parseInt(last, 16) + 1).toString(16));
  lab.outside(`ip -6 route add ${inside}/128 via ${HOST_IPV6_ADDRESS}`);

  assert.equal(await lab.ask(lab.outsidePath, 'udp', inside, 8080), 'silence');
});

check('a container does not send with the address of another', async () => {
  const thief = await network.attach({ id: 'thief', ports: [] });
  const received = () =>
    run(web.namespacePath, ['cat /proc/net/snmp6']).match(/Udp6InDatagrams\s+(\d+)/)?.[1];
  const before_ = received();

  assert.equal(await lab.ask(thief.namespacePath, 'udp', web.ipv6Address ?? '', 80), thief.ipv6Address);
  const own = received();
  run(thief.namespacePath, [`ip -6 address add ${other.ipv6Address}/128 dev eth0 nodad`]);
  run(thief.namespacePath, [`ip -6 address del ${thief.ipv6Address}/112 dev eth0`]);
  assert.equal(await lab.ask(thief.namespacePath, 'udp', web.ipv6Address ?? '', 80), 'silence');

  assert.notEqual(own, before_);
  assert.equal(received(), own);
  await network.call('detach', 'thief');
});

check('no process of the host gets a published port, and none loses one', async () => {
  await assert.rejects(lab.serve(lab.hostPath, 8080, HOST_IPV6_ADDRESS));
  await lab.serve(lab.hostPath, 9090, HOST_IPV6_ADDRESS);
  await assert.rejects(network.attach({ id: 'late', ports: [aPort(80, 9090, 'tcp')] }), {
    message: 'port 9090/tcp is already in use on this node',
  });
});

check('a process that was killed interrupts nothing, and the next one takes over', async () => {
  const client = await lab.connect(lab.outsidePath, 'tcp', HOST_IPV6_ADDRESS, 8080);
  assert.equal(await client.line(), OUTSIDE_IPV6_ADDRESS);
  await network.program.kill();
  client.send('still there');
  assert.equal(await client.line(), 'still there');

  network = await lab.openNetwork();

  assert.deepEqual(await network.attach({ id: 'web', ports: [] }), web);
  for (const protocol of protocols)
    assert.equal(await lab.ask(lab.outsidePath, protocol, HOST_IPV6_ADDRESS, 8080), OUTSIDE_IPV6_ADDRESS);
});

check('a port is refused when its container has left', async () => {
  await network.call('detach', 'web');
  assert.equal(await lab.ask(lab.outsidePath, 'tcp', HOST_IPV6_ADDRESS, 8080), 'ECONNREFUSED');
});

check('taking the network down leaves the host as it was', async () => {
  await network.call('destroy');
  assert.deepEqual(lab.traces(), machineBefore);
});

check('IPv6 that comes to the host later comes to the next endpoint', async () => {
  await using late = new Lab();
  const opened = await late.openNetwork();
  const before_ = await opened.attach({ id: 'before', ports: [aPort(80, 8080, 'tcp')] });
  await late.serve(before_.namespacePath, 80);
  assert.equal(before_.ipv6Address, undefined);
  late.addIpv6();

  const later = await opened.attach({ id: 'later', ports: [aPort(80, 8081, 'tcp')] });
  await late.serve(later.namespacePath, 80, '::');
  assert.equal(await late.ask(late.outsidePath, 'tcp', HOST_IPV6_ADDRESS, 8081), OUTSIDE_IPV6_ADDRESS);
  assert.match(await late.ask(late.outsidePath, 'tcp', HOST_IPV6_ADDRESS, 8080), /^169\.254\./, 'relayed');
  assert.equal(await opened.call('repair'), false);
});
