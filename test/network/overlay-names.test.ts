// Names in the overlay, asked for by containers through 127.0.0.11 (overlay-lab.ts).

import assert from 'node:assert/strict';
import {
  type Container,
  check,
  closed,
  net,
  type OverlayHost,
  type OverlayLab,
  withLab,
} from './overlay-lab.ts';

const many = Array.from({ length: 200 }, (_, index) => `10.0.1.${index + 20}`);
const state = {
  names: [
    [
      { name: 'web', addresses: ['10.0.1.2'] },
      { name: 'tasks.web', addresses: many },
    ],
  ],
};

let lab: OverlayLab;
let host: OverlayHost;
let open: Container;
let inner: Container;
let both: Container;

withLab(1, async (opened) => {
  lab = opened;
  [host] = lab.hosts as [OverlayHost];
  const upstream = lab.program(lab.wirePath, 'dns-upstream.ts', []);
  assert.equal(await upstream.line(), 'ready');
  for (const network of [net, closed]) await host.ensure(network);
  open = await lab.container(host, net.id, '10.0.1.10');
  inner = await lab.container(host, closed.id, '10.0.2.10');
  both = await lab.container(host, closed.id, '10.0.2.11', { isDefaultRoute: false });
  const { namespacePath } = both.endpoint;
  await host.overlay.call('attach', host.endpoint(net.id, '10.0.1.11', { namespacePath }));
  await host.apply(net.id, state);
  await host.apply(closed.id, { names: [[{ name: 'db', addresses: ['10.0.2.2'] }]] });
});

check('a container asks 127.0.0.11, as its resolv.conf says', async () => {
  const attached = await host.overlay.call<{ resolvConf: string }>('attach', open.endpoint);

  assert.match(attached.resolvConf, /^nameserver 127\.0\.0\.11$/m);
  assert.match(attached.resolvConf, /^options ndots:0$/m);
  assert.deepEqual(await open.resolve('web'), ['10.0.1.2']);
  assert.deepEqual(await open.resolve('WEB'), ['10.0.1.2']);
});

check('port 53 of the container is its own', async () => {
  const server = lab.program(open.endpoint.namespacePath, 'peer.ts', ['serve', '53']);

  assert.equal(await server.line(), 'ready');
  assert.deepEqual(await open.resolve('web'), ['10.0.1.2']);
  await server.kill();
});

check('an existing name has no IPv6 address, and a name that nobody has does not exist', async () => {
  assert.equal(await open.resolve('web', 'AAAA'), 'ENODATA');
  assert.equal(await open.resolve('nobody'), 'ENOTFOUND');
});

check('an answer too long for UDP comes whole by TCP', async () => {
  const addresses = (await open.resolve('tasks.web')) as string[];

  assert.deepEqual(addresses.sort(), [...many].sort());
});

check('an address has a name', async () => {
  assert.deepEqual(await open.resolve('10.0.1.2', 'PTR'), ['web']);
  assert.equal(await open.resolve('10.0.1.3', 'PTR'), 'ENOTFOUND');
});

check("other names are asked for with the host's name servers, by UDP and by TCP", async () => {
  assert.deepEqual(await open.resolve('far.example'), ['203.0.113.7']);
  assert.equal(((await open.resolve('big.example')) as string[]).length, 100);
  assert.equal(await open.resolve('nowhere.example'), 'ENOTFOUND');
});

check('a container without a way out asks nobody outside', async () => {
  assert.deepEqual(await inner.resolve('db'), ['10.0.2.2']);
  assert.equal(await inner.resolve('far.example'), 'ENOTFOUND');
  assert.equal(await inner.resolve('web'), 'ENOTFOUND');
});

check('a container of two networks knows the names of both, and the world outside', async () => {
  assert.deepEqual(await both.resolve('web'), ['10.0.1.2']);
  assert.deepEqual(await both.resolve('db'), ['10.0.2.2']);
  assert.deepEqual(await both.resolve('far.example'), ['203.0.113.7']);
});

check('a container does not know the names of networks that it is not in', async () => {
  assert.equal(await open.resolve('db'), 'ENOTFOUND');
});

check('after a restart names are a failure that passes, until they are applied', async () => {
  await host.restart();
  await host.ensure(net);
  assert.equal(await open.resolve('web'), 'ESERVFAIL');

  await host.apply(net.id, state);

  assert.deepEqual(await open.resolve('web'), ['10.0.1.2']);
});
