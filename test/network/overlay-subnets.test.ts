// Networks with several subnets, and networks that get more addresses while they are used (overlay-lab.ts).

import assert from 'node:assert/strict';
import { type Container, check, closed, net, type OverlayLab, withLab } from './overlay-lab.ts';

const narrow = {
  ...net,
  subnets: [{ subnet: '10.0.1.0/28', gateway: '10.0.1.1' }],
};
const wide = { ...net, subnets: [{ subnet: '10.0.0.0/23', gateway: '10.0.1.1' }] };
const more = { ...wide, subnets: [...wide.subnets, { subnet: '10.9.0.0/24', gateway: '10.9.0.1' }] };
const names = [{ name: 'web', addresses: ['10.0.1.10'] }];

let lab: OverlayLab;
let first: Container;
let far: Container;
/** Those that came since. */
const later: Container[] = [];

withLab(2, async (opened) => {
  lab = opened;
  for (const host of lab.hosts) await host.ensure(narrow);
  first = await lab.container(lab.hosts[0]!, net.id, '10.0.1.10');
  far = await lab.container(lab.hosts[1]!, net.id, '10.0.1.11', { isDefaultRoute: false });
  await lab.connect(net.id, [first, far], { names: [names] });
});

async function everybodyReachesEverybody(): Promise<void> {
  const all = [first, far, ...later];
  for (const from of all) {
    for (const to of all) {
      assert.equal(await from.ask('tcp', to.address), `${to.address} ${from.address}`);
    }
    assert.deepEqual(await from.resolve('web'), ['10.0.1.10']);
  }
  for (const host of lab.hosts) assert.deepEqual(await host.overlay.call('audit', net.id), []);
}

async function addContainers(...addresses: readonly string[]): Promise<void> {
  for (const [index, address] of addresses.entries()) {
    later.push(await lab.container(lab.hosts[index]!, net.id, address));
  }
  await lab.connect(net.id, [first, far, ...later], { names: [names] });
}

check('a subnet that is widened, and one that is added, leave connections alone', async () => {
  await first.peer.call('open', { name: 'kept', host: far.address });

  for (const { network, addresses } of [
    { network: wide, addresses: ['10.0.0.7', '10.0.1.200'] },
    { network: more, addresses: ['10.9.0.7', '10.9.0.8'] },
  ] as const) {
    for (const host of lab.hosts) await host.ensure(network);
    await addContainers(...addresses);
    await everybodyReachesEverybody();
    assert.equal(await first.peer.call('send', { name: 'kept', text: 'still here' }), 'still here');
  }

  assert.match(far.run('ip route'), /^10\.9\.0\.0\/24 via 10\.0\.1\.1 dev eth0/m);
  assert.doesNotMatch(far.run('ip route'), /10\.0\.1\.0\/28/);
});

check('addresses that nobody has are refused in each subnet', async () => {
  for (const address of ['10.0.0.99', '10.9.0.99']) {
    assert.match(await first.ask('tcp', address), /EHOSTUNREACH|ENETUNREACH/);
  }
});

check('a subnet is not taken away, nor its gateway changed', async () => {
  const [host] = lab.hosts;
  const moved = { ...more, subnets: [{ subnet: '10.0.0.0/23', gateway: '10.0.0.1' }, more.subnets[1]!] };
  for (const network of [wide, narrow, moved]) {
    await assert.rejects(host!.ensure(network), { code: 'failed-precondition' });
  }
  await everybodyReachesEverybody();
});

check('a network that became wider while the process was away is wider with the next one', async () => {
  const widest = { ...more, subnets: [more.subnets[0]!, { subnet: '10.9.0.0/16', gateway: '10.9.0.1' }] };
  for (const host of lab.hosts) {
    await host.restart();
    await host.ensure(widest);
  }
  await addContainers('10.9.77.7', '10.9.78.8');

  await everybodyReachesEverybody();
});

check('subnets that overlap, and a gateway outside of its subnet, are refused', async () => {
  const [host] = lab.hosts;
  const [subnet] = closed.subnets;
  for (const [subnets, message] of [
    [[subnet!, { subnet: '10.0.2.128/25', gateway: '10.0.2.129' }], /^subnets: .* overlaps with another/],
    [[{ subnet: '10.0.2.0/24', gateway: '10.0.3.1' }], /^gateway: 10\.0\.3\.1 is not in 10\.0\.2\.0\/24$/],
    [[{ subnet: 'fd00:2::/64', gateway: 'fd00:2::1' }], /^subnets: .* has none of IPv4$/],
  ] as const) {
    await assert.rejects(host!.ensure({ ...closed, subnets }), { code: 'invalid-argument', message });
  }
});
