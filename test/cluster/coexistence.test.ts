// tsswarm beside another firewall on the same host: Docker, ufw and firewalld as Debian ships them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyNetworkSpec, emptyPortConfig } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { ask, ECHO_PORT, echoContainer } from '../support/echo-service.ts';
import { eventually } from '../support/eventually.ts';
import { NetnsLan } from '../support/netns-lan.ts';
import { attachmentTo, untilAnswered } from '../support/network-cluster.ts';
import {
  type RealFirewall,
  startDocker,
  startFirewalld,
  startUfw,
  whyNoFirewall,
} from '../support/real-firewalls.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, untilRunning } from '../support/services.ts';

const FIREWALLS = [
  ['docker', '/usr/sbin/dockerd', startDocker],
  ['ufw', '/usr/sbin/ufw', startUfw],
  ['firewalld', '/usr/sbin/firewalld', startFirewalld],
] as const;
const networkSpec = { ...emptyNetworkSpec, name: 'front' };
const PORT = 8080;
const HOST_PORT = 8081;
const OUTSIDE_PORT = 9000;

for (const [name, program, start] of FIREWALLS)
  test(`beside ${name}, published ports are reached and containers reach the world, also after it was reloaded`, {
    skip: whyNoRealNode() ?? whyNoFirewall(program) ?? false,
  }, async () => {
    using lan = new NetnsLan(`tsf-${name.slice(0, 2)}`, 1);
    const [netns = ''] = lan.hosts;
    const outside = { host: lan.addOutsider() };
    await using firewall: RealFirewall = await start(netns);
    await using node = await RealNode.start({ netns, environment: firewall.environment });
    await node.init();
    await node.importImage((await buildDemoImage({ name: 'localhost/bb:1' })).archive);
    await node.control.createNetwork({ spec: networkSpec });
    const ports = [
      { ...emptyPortConfig, targetPort: ECHO_PORT, publishedPort: PORT },
      { ...emptyPortConfig, targetPort: ECHO_PORT, publishedPort: HOST_PORT, publishMode: 'host' as const },
    ];
    const { id } = await createService(node, 'web', {
      image: 'localhost/bb:1',
      container: echoContainer(),
      ports,
      change: (spec) => ({ ...spec, task: { ...spec.task, networks: [attachmentTo('front')] } }),
    });
    const [task] = await untilRunning(node, id, 1);
    assert.ok(task !== undefined);
    await using _server = await lan.listenOn(outside.host, OUTSIDE_PORT);
    const works = async () => {
      for (const port of [PORT, HOST_PORT]) {
        await untilAnswered(outside, { host: lan.addressOf(0), port });
        const [answer] = await ask(outside, { host: lan.addressOf(0), port });
        assert.equal(answer?.client, lan.outsiderAddress);
      }
      await untilAnswered({ task }, { host: lan.outsiderAddress, port: OUTSIDE_PORT });
    };
    await works();
    assert.deepEqual(
      (await node.node.info({})).warnings.filter((text) => /firewall|drops/.test(text)),
      [],
    );

    await firewall.reload();
    await works();
  });

test('a firewall that keeps the nodes apart is a finding, with the rule that lets them through', {
  skip: whyNoRealNode() ?? whyNoFirewall('/usr/sbin/ufw') ?? false,
}, async () => {
  using lan = new NetnsLan('tsf-cl', 1);
  const [netns = ''] = lan.hosts;
  await using firewall = await startUfw(netns);
  await using node = await RealNode.start({ netns });
  await node.init();
  await node.importImage((await buildDemoImage({ name: 'localhost/bb:1' })).archive);
  await node.control.createNetwork({ spec: networkSpec });
  const { id } = await createService(node, 'web', {
    image: 'localhost/bb:1',
    change: (spec) => ({ ...spec, task: { ...spec.task, networks: [attachmentTo('front')] } }),
  });
  await untilRunning(node, id, 1);
  await firewall.closeDataPath?.();
  await eventually(async () => {
    const { stdout } = await node.cli('doctor');
    assert.match(stdout, /drops the traffic between nodes \(UDP port 4789\).*ufw allow 4789\/udp/s);
    return true;
  });
});

test('what somebody flushes from the kernel is put back', { skip: whyNoRealNode() ?? false }, async () => {
  using lan = new NetnsLan('tsf-fl', 1);
  const [netns = ''] = lan.hosts;
  const outside = { host: lan.addOutsider() };
  await using node = await RealNode.start({ netns });
  await node.init();
  await node.importImage((await buildDemoImage({ name: 'localhost/bb:1' })).archive);
  const ports = [
    { ...emptyPortConfig, targetPort: ECHO_PORT, publishedPort: PORT },
    { ...emptyPortConfig, targetPort: ECHO_PORT, publishedPort: HOST_PORT, publishMode: 'host' as const },
  ];
  const { id } = await createService(node, 'web', {
    image: 'localhost/bb:1',
    container: echoContainer(),
    ports,
  });
  await untilRunning(node, id, 1);
  for (const port of [PORT, HOST_PORT]) await untilAnswered(outside, { host: lan.addressOf(0), port });
  lan.run(netns, 'nft', 'flush', 'ruleset');
  for (const port of [PORT, HOST_PORT]) await untilAnswered(outside, { host: lan.addressOf(0), port });
});
